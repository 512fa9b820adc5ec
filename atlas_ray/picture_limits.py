"""What is refused before a picture is decoded, whoever looks at it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """What is refused before decoding."""

    max_bytes: int = 32 * 1024 * 1024
    """The largest file."""
    max_pixels: int = 64_000_000
    """The most pixels that a header may declare, width times height."""
    max_frames: int = 1_000
    """The most frames of an animation."""


DEFAULT_LIMITS = PictureLimits()
