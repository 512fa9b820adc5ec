"""Attention maps as pictures: to lay over the one that was looked at, or beside each other in a strip."""

import io
import os.path
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atlas_ray.reports.page import data_uri, plain

Maps = np.ndarray[Any, np.dtype[np.float32]]
"""(depth, rows, columns), each level's sums to 1."""
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""(3, size, size), as the model sees a picture."""

COLOR = (255, 96, 0)
OPAQUE = 190  # of 255: what was looked at most stays to be seen
SIDE_PX = 224
CAPTION_PX = 24
GAP_PX = 8


def overlays(maps: Maps, levels: int) -> list[str]:
    """Return a PNG for each level as a data URI: a colour whose opacity is the attention.

    Args:
        maps: Of a picture.
        levels: Of the path; the maps past it are left out.
    """
    return [data_uri(_file(_overlay(level), "PNG"), "png") for level in maps[:levels]]


def seen(pixels: Pixels) -> str:
    """Return a picture as the model sees it as the data URI of a JPEG."""
    return data_uri(_file(_picture(pixels), "JPEG"), "jpeg")


def strip(pixels: Pixels, maps: Maps, captions: Sequence[str]) -> Image.Image:
    """Draw a picture, and beside it the same under each level's attention, as in Figure 3 of the Atlas paper.

    Args:
        pixels: The picture.
        maps: Where the model looked, at least as many levels as captions.
        captions: What stands below each level: its name and its probability.
    """
    picture = _picture(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).convert("RGBA")
    shown = [picture, *(Image.alpha_composite(picture, _overlay(level)) for level in maps[: len(captions)])]
    sheet = Image.new("RGB", (len(shown) * (SIDE_PX + GAP_PX) - GAP_PX, SIDE_PX + CAPTION_PX), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 13)
    for place, (one, caption) in enumerate(zip(shown, ["", *map(plain, captions)], strict=True)):
        left = place * (SIDE_PX + GAP_PX)
        sheet.paste(one.convert("RGB"), (left, 0))
        while font.getlength(caption) > SIDE_PX:
            caption = caption[:-2] + "…"
        draw.text((left, SIDE_PX + 4), caption, "black", font)
    return sheet


def _overlay(level: Maps) -> Image.Image:
    peak = float(level.max())
    shares = (OPAQUE * level / peak if peak > 0 else level).astype(np.uint8)
    picture = Image.new("RGBA", (SIDE_PX, SIDE_PX), COLOR)
    picture.putalpha(Image.fromarray(shares).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))
    return picture


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _file(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()
