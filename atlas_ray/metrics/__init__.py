"""Measures of how well category paths and labels were predicted, and of how far the probabilities can be trusted."""

from atlas_ray.metrics.paths import Confusion, PathMetrics, PathRow, common_prefix, measure

FIGURES = {"val_accuracy": "accuracy", "val_micro_f1": "micro-F1"}
"""Names of the figures by which a training is judged on its validation split, by their key in `metrics.json`."""
MAX_LOSS = 1e4
"""The mean loss above which a training has diverged: the right answers have a probability of e^-10000."""

__all__ = [
    "FIGURES",
    "MAX_LOSS",
    "Confusion",
    "PathMetrics",
    "PathRow",
    "common_prefix",
    "measure",
]
