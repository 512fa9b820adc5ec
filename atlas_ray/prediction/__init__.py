"""A trained model run over batches, on one device."""
