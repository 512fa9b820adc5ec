"""Bulk categorization: every picture of a catalogue to a category path, on Ray Data."""

from atlas_ray.scoring.config import ScoreConfig
from atlas_ray.scoring.run import ScoreReport, score

__all__ = ["ScoreConfig", "ScoreReport", "score"]
