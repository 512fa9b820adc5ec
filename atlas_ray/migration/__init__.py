"""Predictions and labels of one version of a taxonomy rewritten to the next, on Ray Data."""
