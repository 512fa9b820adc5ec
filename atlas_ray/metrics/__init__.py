"""Measures of how well category paths and labels were predicted, and of how far the probabilities can be trusted."""

from atlas_ray.metrics.labels import MicroF1, compare
from atlas_ray.metrics.paths import Confusion, PathMetrics, PathRow, common_prefix, measure

FIGURES = {"val_accuracy": "accuracy", "val_micro_f1": "micro-F1"}
"""What a training of paths, or of labels, is judged by on its validation split, and what people call it."""

__all__ = ["FIGURES", "Confusion", "MicroF1", "PathMetrics", "PathRow", "common_prefix", "compare", "measure"]
