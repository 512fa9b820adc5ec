"""Limits by which pictures are refused before they are decoded, in every command."""

from dataclasses import dataclass
from typing import Any

from atlas_ray.settings import setting

MIN_SIDE_PX = 2
"""The default of the shortest accepted longer side; pictures of one pixel count visits and show no product."""
SCAN = b"\xff\xda"
"""The bytes before each scan of a JPEG, which its pixels never hold."""


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """Limits above or below which a picture is refused before it is decoded."""

    max_bytes: int = 32 * 1024 * 1024
    """The size of the largest accepted file in bytes."""
    max_pixels: int = 64_000_000
    """The most pixels, width times height, that a header may declare."""
    min_side_px: int = MIN_SIDE_PX
    """The shortest longer side that a header may declare."""
    max_frames: int = 1_000
    """The most frames that an animation may have."""
    max_scanned_pixels: int = 1_280_000_000
    """The most pixels, width times height times scans, that the decoder of a JPEG may go over. A progressive one has
    about ten scans; thousands fit into a small file, and each costs as much as all pixels."""

    def allow(self, width_px: int, height_px: int) -> bool:
        """Tell whether a picture of this size is decoded."""
        return max(width_px, height_px) >= self.min_side_px and width_px * height_px <= self.max_pixels

    def allow_scans(self, jpeg: bytes, width_px: int, height_px: int) -> bool:
        """Tell whether a JPEG of this size is decoded, by its number of scans."""
        return scans(jpeg) * width_px * height_px <= self.max_scanned_pixels


def scans(jpeg: bytes) -> int:
    """Return the number of scans of a JPEG, or a little more: its metadata may hold the same two bytes."""
    return jpeg.count(SCAN)


DEFAULT_LIMITS = PictureLimits()


def min_side_setting() -> Any:
    """Define the field `min_side_px` of the settings of a command that looks at pictures."""
    return setting(
        "pictures whose longer side has fewer pixels are refused as too_small", MIN_SIDE_PX, low=1, high=10_000
    )
