"""The two ways in which PyTorch itself runs an encoder."""

from collections.abc import Callable

import torch
from torch import Tensor

from atlas_ray.models.backbones.backbone import Backbone


def as_it_is(encoder: Backbone, image_size_px: int) -> Callable[[Tensor], Tensor]:  # noqa: ARG001
    """Run the encoder an operation at a time."""
    return encoder


def compiled(encoder: Backbone, image_size_px: int) -> Callable[[Tensor], Tensor]:  # noqa: ARG001
    """Compile the encoder when it first runs."""
    return torch.compile(encoder)
