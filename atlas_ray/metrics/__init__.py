"""Measures of how well category paths were predicted, and of how far the probabilities can be trusted."""

from atlas_ray.metrics.paths import PathMetrics, PathRow, common_prefix, measure

__all__ = ["PathMetrics", "PathRow", "common_prefix", "measure"]
