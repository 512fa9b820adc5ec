"""Labels from nothing: close-ups cut from the pictures of a catalogue, beside whole ones.

A close-up that is cut from a picture and enlarged is blurred, and its JPEG blocks are enlarged too;
a network would learn that, and not what a close-up is. So whole pictures and close-ups go through
the same lens: each is brought to as few pixels as a close-up of that picture would have, saved as a
JPEG of a random quality, and enlarged. What still tells them apart is how much of the picture they
show.

Nearly half of the examples are close-ups, more than a shop has: the share of true close-ups among
the pictures found zoomed will be smaller there than on these examples.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from atlas_ray.modalities.limits import DEFAULT_LIMITS, PictureLimits
from atlas_ray.modalities.pictures import decode

CANVAS_PX = 600
"""Side of the square that a picture is decoded to before it is cut."""
CLOSE_UP_SCALES = (0.15, 0.45)
"""The side of a close-up, in sides of its picture."""
WHOLE_SCALES = (0.8, 1.0)
"""The same of a picture that stays normal: shops frame their products more or less tightly."""
JPEG_QUALITIES = (60, 95)
LEAST_VIEW_PX = 12
COARSE = 4
"""A place for a close-up is looked for on every fourth pixel."""
TRIES = 40
EDGE_PX = 6
"""Width of the edge whose median colour is taken for the background, on the coarse grid."""
FAR_FROM_BACKGROUND = 24
"""A pixel that differs by more in one of its colours belongs to the product; of 255."""
LEAST_PRODUCT = 0.75
"""Share of a close-up that the product fills."""
LEAST_DEVIATION = 4.0
"""Standard deviation of a close-up's brightness, of 255; below it is a flat area."""

Box = tuple[int, int, int]
"""Top, left and side, in pixels of the canvas."""


def bootstrap_example(
    data: bytes, *, zoomed: bool, size_px: int, rng: np.random.Generator, limits: PictureLimits = DEFAULT_LIMITS
) -> tuple[Tensor, bool]:
    """Make an example of a picture that is taken for a normal one.

    Args:
        data: The picture's bytes.
        zoomed: Cut a close-up from it.
        size_px: The side of the example.
        rng: Draws all that is random.
        limits: What to refuse.

    Returns:
        (3, size, size) uint8, and whether it is a close-up: where no place of the picture is fit for
        one, it stays normal.

    Raises:
        PictureError: as `atlas_ray.modalities.pictures.decode`.
    """
    picture = decode(data, CANVAS_PX, limits)
    # Drawn before the label counts, so that no draw depends on it.
    scale, whole_scale = rng.uniform(*CLOSE_UP_SCALES), rng.uniform(*WHOLE_SCALES)
    quality = int(rng.integers(*JPEG_QUALITIES))
    close_px = round(scale * CANVAS_PX)
    source_px = max(int(scale * min(picture.width_px, picture.height_px, CANVAS_PX)), LEAST_VIEW_PX)
    place = close_up(picture.pixels, scale, rng) if zoomed else None
    if place:
        view = _cut(picture.pixels, place)
    else:  # as large as a close-up on the canvas, and enlarged to it from as few pixels
        view = _resize(_resize(_cut(picture.pixels, _anywhere(whole_scale, rng)), source_px), close_px)
    file = io.BytesIO()
    Image.fromarray(_resize(view, source_px).permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return decode(file.getvalue(), size_px).pixels, place is not None


def close_up(pixels: Tensor, scale: float, rng: np.random.Generator) -> Box | None:
    """Find a random place of a picture that shows its product, not its background.

    Args:
        pixels: (3, side, side) uint8.
        scale: Side of the close-up, in sides of the picture.
        rng: Draws the places.

    Returns:
        Where it is, or None if no place drawn was fit.
    """
    coarse = pixels[:, ::COARSE, ::COARSE].float()  # (3, rows, columns)
    edge = torch.ones(coarse.shape[1:], dtype=torch.bool)
    edge[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX] = False
    background = coarse[:, edge].median(1).values[:, None, None]
    product = (coarse - background).abs().amax(0) > FAR_FROM_BACKGROUND  # (rows, columns)
    brightness = coarse.mean(0)
    side = max(round(scale * len(product)), 1)
    for top, left in rng.integers(0, len(product) - side + 1, (TRIES, 2)).tolist():
        place = slice(top, top + side), slice(left, left + side)
        if product[place].float().mean() >= LEAST_PRODUCT and brightness[place].std() >= LEAST_DEVIATION:
            return top * COARSE, left * COARSE, side * COARSE
    return None


def _anywhere(scale: float, rng: np.random.Generator) -> Box:
    side = round(scale * CANVAS_PX)
    top, left = rng.integers(0, CANVAS_PX - side + 1, 2).tolist()
    return top, left, side


def _cut(pixels: Tensor, box: Box) -> Tensor:
    top, left, side = box
    return pixels[:, top : top + side, left : left + side]


def _resize(pixels: Tensor, side: int) -> Tensor:
    return interpolate(pixels[None], (side, side), mode="bilinear", antialias=True)[0]
