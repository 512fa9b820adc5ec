"""Measures of how well category paths were predicted."""

from atlas_ray.metrics.paths import PathMetrics, PathRow, measure

__all__ = ["PathMetrics", "PathRow", "measure"]
