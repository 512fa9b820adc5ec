"""What is refused before a picture is decoded, whoever looks at it."""

from dataclasses import dataclass
from typing import Any

from atlas_ray.settings import setting

MIN_SIDE_PX = 2
"""A picture of one pixel counts visits; it shows no product."""


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """What is refused before decoding."""

    max_bytes: int = 32 * 1024 * 1024
    """The largest file."""
    max_pixels: int = 64_000_000
    """The most pixels that a header may declare, width times height."""
    min_side_px: int = MIN_SIDE_PX
    """The least that a header may declare of the longer side."""
    max_frames: int = 1_000
    """The most frames of an animation."""


DEFAULT_LIMITS = PictureLimits()


def min_side_setting() -> Any:
    """Define the field `min_side_px` of the settings of a command that looks at pictures."""
    return setting(
        "pictures whose longer side has fewer pixels are refused as too_small", MIN_SIDE_PX, low=1, high=10_000
    )
