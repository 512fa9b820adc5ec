"""The engines, which run a picture encoder from pictures to a grid of features."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.prediction.engines import pytorch


@dataclass(frozen=True)
class Engine:
    """A way to run an encoder."""

    prepare: Callable[[Backbone, int], Callable[[Tensor], Tensor]]
    """Takes an encoder in its dtype on its device, and the side of its pictures in pixels; returns what takes
    pictures (batch, 3, size, size) uint8 on that device to features (batch, features, rows, columns).

    A package that only this engine needs is imported here, and named by a `ConfigError` if it is missing."""
    summary: str
    """What it does, for the help of `--engine`."""


ENGINES: dict[str, Engine] = {
    "torch": Engine(pytorch.as_it_is, "PyTorch, an operation at a time"),
    "compiled": Engine(pytorch.compiled, "PyTorch's compiler, which takes a minute at the start"),
}
