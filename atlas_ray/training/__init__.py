"""Training on Ray Train over Ray Data."""

from atlas_ray.training.config import TrainConfig
from atlas_ray.training.run import TrainReport, train

__all__ = ["TrainConfig", "TrainReport", "train"]
