"""Networks: single-device PyTorch modules that know nothing of Ray. Importing this package imports no torch."""
