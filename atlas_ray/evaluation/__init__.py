"""Measures of finished runs and models against labels: paths, labels, calibration, comparison, review."""
