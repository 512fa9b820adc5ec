"""What is refused before a picture is decoded, whoever looks at it."""

from dataclasses import dataclass
from typing import Any

from atlas_ray.config import setting

MIN_SIDE_PX = 8
"""A smaller picture is no product: shops' pages are full of pixels that count visits and of empty place holders."""


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """What is refused before decoding."""

    max_bytes: int = 32 * 1024 * 1024
    """The largest file."""
    max_pixels: int = 64_000_000
    """The most pixels that a header may declare, width times height."""
    min_side_px: int = MIN_SIDE_PX
    """The least of the two sides that a header may declare."""
    max_frames: int = 1_000
    """The most frames of an animation."""


DEFAULT_LIMITS = PictureLimits()


def min_side_setting() -> Any:
    """Define the field `min_side_px` of the settings of a command that looks at pictures."""
    return setting("pictures with a side of fewer pixels are refused as too_small", MIN_SIDE_PX, low=1, high=10_000)
