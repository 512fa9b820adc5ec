"""Plain JPEGs decoded by libjpeg-turbo alone: most pictures of a shop, in two thirds of Pillow's time."""

from typing import Any

import numpy as np
import simplejpeg

from atlas_ray.modalities.limits import PictureLimits

START, SCAN, APP1, APP2, MULTIPLE = b"\xff\xd8\xff", 0xDA, 0xE1, 0xE2, b"MPF\0"
MAX_SEGMENTS = 100
"""The most segments before the pixels; a file of millions of empty ones would take seconds to read."""
COLOURS = ("YCbCr", "RGB", "Gray")
FACTORS = (8, 4, 2)
"""What the sides may be divided by while a JPEG is decoded; for factors in between libjpeg-turbo has no fast way."""

Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def decode_plain_jpeg(data: bytes, least_px: int, limits: PictureLimits) -> tuple[Pixels, int, int] | None:
    """Decode a JPEG at the smallest of its half, quarter or eighth that has sides of at least `least_px`.

    The pixels are those that Pillow gives.

    Args:
        data: The file's bytes.
        least_px: As said; a smaller picture is decoded whole. One that would keep a side of four times this is
            not plain.
        limits: What is not decoded.

    Returns:
        (rows, columns, 3) RGB, and the width and height of the file. None for all that has to be looked at closer:
        another format, colours for print, metadata that may say how to turn it, several pictures in one, a file past
        a limit, or one with any fault.
    """
    if len(data) > limits.max_bytes or not _is_plain(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        factor = next((factor for factor in FACTORS if min(width, height) // factor >= least_px), 1)
        rows, columns = -(-height // factor), -(-width // factor)
        if colours not in COLOURS or not limits.allow(width, height) or max(rows, columns) >= 4 * least_px:
            return None
        if not limits.allow_scans(data, width, height):
            return None
        pixels: Any = simplejpeg.decode_jpeg(data, min_height=rows, min_width=columns, min_factor=1)
    except ValueError:
        return None
    return pixels, width, height


def _is_plain(data: bytes) -> bool:
    """Tell whether a file is a JPEG whose segments before the pixels hold neither EXIF, XMP nor further pictures."""
    if not data.startswith(START):
        return False
    at = 2
    for _ in range(MAX_SEGMENTS):
        if len(data) < at + 4 or data[at] != 0xFF:
            return False
        kind = data[at + 1]
        if kind == SCAN:
            return True
        if kind == APP1 or (kind == APP2 and data.startswith(MULTIPLE, at + 4)):
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return False
