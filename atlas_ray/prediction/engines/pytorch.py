"""The way in which PyTorch itself runs an encoder."""

from collections.abc import Callable

from torch import Tensor, nn


def as_it_is(encoder: nn.Module, image_size_px: int) -> Callable[[Tensor], Tensor]:  # noqa: ARG001
    """Run the encoder an operation at a time."""
    return encoder
