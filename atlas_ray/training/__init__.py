"""Training on Ray Train over Ray Data."""
