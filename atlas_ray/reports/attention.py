"""Attention maps as pictures: to lay over the one that was looked at, or beside each other in a strip."""

import io
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from atlas_ray.reports.fonts import font_of, own_font
from atlas_ray.reports.page import data_uri, plain

Maps = np.ndarray[Any, np.dtype[np.float32]]
"""(depth, rows, columns), each level's sums to 1."""
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""(3, size, size), as the model sees a picture."""

COLOR = (255, 96, 0)
OPAQUE = 190  # of 255, so that the part that was looked at most stays visible
SIDE_PX = 224
CAPTION_PX = 24
BASELINE_PX, FONT_PX = 17, 13
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


def frames(pixels: Pixels, maps: Maps, levels: int) -> list[Image.Image]:
    """Return a picture, and the same under the attention of each of its path's levels."""
    picture = _picture(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).convert("RGBA")
    looked = (Image.alpha_composite(picture, _overlay(level)) for level in maps[:levels])
    return [one.convert("RGB") for one in (picture, *looked)]


def strip(pixels: Pixels, maps: Maps, levels: Sequence[tuple[str, float]]) -> Image.Image:
    """Draw a picture, and beside it the same under each level's attention, as in Figure 3 of the Atlas paper.

    Args:
        pixels: The picture.
        maps: Where the model looked, at least as many levels as there are captions.
        levels: The caption of each: its name and its probability. A name that no installed font can
            write is the level's number.
    """
    shown = frames(pixels, maps, len(levels))
    sheet = Image.new("RGB", (len(shown) * (SIDE_PX + GAP_PX) - GAP_PX, SIDE_PX + CAPTION_PX), "white")
    for place, one in enumerate(shown):
        sheet.paste(one, (place * (SIDE_PX + GAP_PX), 0))
    draw = ImageDraw.Draw(sheet)
    for level, (name, probability) in enumerate(levels, 1):
        _write(draw, level, name, probability)
    return sheet


def _write(draw: ImageDraw.ImageDraw, level: int, name: str, probability: float) -> None:
    """Write a level's caption below it; a name that is too long is cut."""
    default_font = own_font(FONT_PX)
    name = unicodedata.normalize("NFC", plain(name))
    font = font_of(name, FONT_PX)
    if font is None:
        name, font = f"level {level}", default_font
    sure = f" {probability:.2f}"
    room = SIDE_PX - default_font.getlength(sure)
    if font.getlength(name) > room:
        sure = f"…{sure}"
        room -= default_font.getlength("…")
    while font.getlength(name) > room:
        name = name[:-1]
    left, baseline = level * (SIDE_PX + GAP_PX), SIDE_PX + BASELINE_PX
    draw.text((left, baseline), name, "black", font, anchor="ls")
    draw.text((left + font.getlength(name), baseline), sure, "black", default_font, anchor="ls")


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
