"""Attention maps as pictures to lay over the one that was looked at."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

COLOR = (255, 96, 0)
OPAQUE = 190  # of 255: what was looked at most stays to be seen
SIDE_PX = 224


def overlays(maps: "np.ndarray[Any, np.dtype[np.float32]]", levels: int) -> list[str]:
    """Return a PNG for each level as a data URI: a colour whose opacity is the attention.

    Args:
        maps: (depth, rows, columns), each level's sums to 1.
        levels: Of the path; the maps past it are left out.
    """
    return [_overlay(level) for level in maps[:levels]]


def seen(pixels: "np.ndarray[Any, np.dtype[np.uint8]]") -> str:
    """Return a picture as the model sees it, (3, size, size), as the data URI of a JPEG."""
    return _data_uri(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), "JPEG")


def _overlay(level: "np.ndarray[Any, np.dtype[np.float32]]") -> str:
    peak = float(level.max())
    shares = (OPAQUE * level / peak if peak > 0 else level).astype(np.uint8)
    alpha = Image.fromarray(shares).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    picture = Image.new("RGBA", (SIDE_PX, SIDE_PX), COLOR)
    picture.putalpha(alpha)
    return _data_uri(picture, "PNG")


def _data_uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
