"""The endpoint: constrained search over single pictures, batched, on Ray Serve."""
