"""Pictures decoded from bytes to RGB pixels of the model's size, in the same way in every job.

A picture is squashed to a square, as Atlas does (Umaashankar et al. 2019), so its EXIF
orientation may be applied after the resize. Transparent pixels become white. Of an animation the
first frame counts.
"""

import functools
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.dlpack import from_dlpack

from atlas_ray.errors import PictureError
from atlas_ray.modalities.limits import DEFAULT_LIMITS, PictureLimits
from atlas_ray.modalities.picture_files import open_picture
from atlas_ray.modalities.plain_jpegs import decode_plain_jpeg

ORIENTATION_TAG = 0x0112
TAGGED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Keys of a picture's metadata in which Pillow looks for the orientation tag."""
MAX_DECODING_THREADS = 16
"""The most threads that decode in a process, unless it is told otherwise."""
MIN_REDUCED_PX = 128
"""Smallest side to which a large picture is reduced before it is resized. A reduced side is rounded up to whole
pixels, so that what is left is stretched by up to one of them; a fingerprint of 32 pixels tells that from 64."""
# EXIF orientation -> (transpose first, then flip height, flip width)
ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class Picture:
    """A decoded picture and what its header said."""

    pixels: Tensor
    """(3, size, size) uint8, RGB."""
    width_px: int
    height_px: int


@dataclass(frozen=True)
class DecodedBatch:
    """Pictures that were decoded once and resized to several sizes."""

    pixels: tuple[Tensor, ...]
    """For each size (count, 3, size, size) uint8, RGB; zeros if a picture was refused."""
    width_px: "np.ndarray[tuple[int], np.dtype[np.int32]]"
    """(count,) widths of the picture files in pixels."""
    height_px: "np.ndarray[tuple[int], np.dtype[np.int32]]"
    refused: dict[int, PictureError]
    """The refused pictures, by index."""


def decode(data: bytes, size_px: int, limits: PictureLimits = DEFAULT_LIMITS) -> Picture:
    """Decode a picture and resize it to a square.

    Args:
        data: The file's bytes.
        size_px: The side of the result.
        limits: What to refuse before decoding.

    Raises:
        PictureError: with a code of `open_picture`.
    """
    (pixels,), width, height = _decode(data, (size_px,), limits)
    return Picture(pixels, width, height)


@functools.cache
def decoding_pool(threads: int = 0) -> Executor:
    """Return the threads of this process that decode pictures, the same ones for the same number.

    Args:
        threads: How many; 0: one a core, at most `MAX_DECODING_THREADS`.
    """
    count = threads or min(os.cpu_count() or 1, MAX_DECODING_THREADS)
    own = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "decode", initializer=_resize_alone)
    # What a thread sets is what PyTorch gives every later one. So all of these set theirs now, and this one after them.
    together = threading.Barrier(count)
    for _ in pool.map(lambda _: together.wait(), range(count)):
        pass
    torch.set_num_threads(own)
    return pool


def _resize_alone() -> None:
    """Keep this thread from starting OpenMP threads to resize, which would then spin beside the model's."""
    torch.get_num_threads()  # a thread takes what others have set at its first look, which would undo the next line
    torch.set_num_threads(1)


def decode_batch(
    contents: Sequence[bytes],
    size_px: int,
    *,
    limits: PictureLimits = DEFAULT_LIMITS,
    pool: Executor | None = None,
) -> tuple[Tensor, dict[int, PictureError]]:
    """Decode many pictures, in the pool's threads if one is given.

    Returns:
        (count, 3, size, size) uint8, zeros if a picture was refused, and the refusals by index.
    """
    batch = decode_batch_at(contents, (size_px,), limits=limits, pool=pool)
    return batch.pixels[0], batch.refused


@torch.inference_mode(mode=False)  # the pool's threads could not write to a tensor that a caller's inference mode marks
def decode_batch_at(
    contents: Sequence[bytes],
    sizes_px: Sequence[int],
    *,
    limits: PictureLimits = DEFAULT_LIMITS,
    pool: Executor | None = None,
) -> DecodedBatch:
    """Decode many pictures, each once, for models that take different sizes."""
    count = len(contents)
    batches = tuple(torch.zeros((count, 3, size, size), dtype=torch.uint8) for size in sizes_px)
    widths, heights = np.zeros(count, np.int32), np.zeros(count, np.int32)
    refused: dict[int, PictureError] = {}

    def one(index: int) -> None:
        try:
            squares, widths[index], heights[index] = _decode(contents[index], sizes_px, limits)
        except PictureError as error:
            # Where it was raised leads back here, so that all the files would stay until garbage is collected.
            error.__context__ = error.__traceback__ = None
            refused[index] = error
            return
        for batch, square in zip(batches, squares, strict=True):
            batch[index] = square

    for _ in (pool.map if pool else map)(one, range(count)):
        pass
    return DecodedBatch(batches, widths, heights, refused)


def _decode(data: bytes, sizes_px: Sequence[int], limits: PictureLimits) -> tuple[list[Tensor], int, int]:
    """Return the picture at each size, and the width and height of the file."""
    least_px = max(2 * max(sizes_px), MIN_REDUCED_PX)
    plain = decode_plain_jpeg(data, least_px, limits)
    if plain is not None:
        array, width, height = plain
        small = max(array.shape) < 2 * least_px
        pixels = torch.from_numpy(array) if small else _in_place(_reduced(Image.fromarray(array), least_px))
        orientation = 1
    else:
        with open_picture(data, limits) as image:
            width, height = image.size
            pixels = _pixels(image, least_px)
            orientation = _orientation(image)
    pixels = pixels.permute(2, 0, 1)
    return [_square(pixels, size, orientation) for size in sizes_px], width, height


def _square(pixels: Tensor, size_px: int, orientation: int) -> Tensor:
    """Resize (3 or 4, height, width), of which the first three are taken, to (3, size, size), upright."""
    square = interpolate(pixels[None], (size_px, size_px), mode="bilinear", antialias=True)[0, :3]
    if orientation in ORIENTATIONS:
        transpose, flip_height, flip_width = ORIENTATIONS[orientation]
        square = square.transpose(1, 2) if transpose else square
        flips = [axis for axis, flip in ((1, flip_height), (2, flip_width)) if flip]
        square = square.flip(flips) if flips else square
    return square


def _pixels(image: Image.Image, least_px: int) -> Tensor:
    """Return the picture's pixels, (height, width, 3 or 4) uint8, RGB first, with transparent parts on white."""
    if image.format in ("JPEG", "MPO"):  # libjpeg decodes a large one at a half, quarter or eighth
        image.draft(None, (least_px, least_px))
    image.load()
    if image.mode == "F":
        raise PictureError("unsupported_format", "32-bit float pixels; convert it to 8 bits")
    if image.mode.startswith("I;16") or image.mode == "I":  # 16-bit grey
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    mode = "RGBA" if clear else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    image = _reduced(image, least_px)
    if clear:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _in_place(image)


def _reduced(image: Image.Image, least_px: int) -> Image.Image:
    """Do what a draft does for a JPEG: all pixels of a large picture would take seconds to go on with."""
    factors = (max(1, image.width // least_px), max(1, image.height // least_px))
    return image.reduce(factors) if factors != (1, 1) else image


def _in_place(image: Image.Image) -> Tensor:
    """Return an RGB or RGBA picture's pixels where Pillow holds them, four bytes each: (height, width, 4) uint8.

    To copy them to NumPy would keep other threads from the interpreter meanwhile.
    """
    try:
        flat: pa.UInt8Array = pa.array(image).flatten()
    except ValueError:  # over 16 MiB, which Pillow holds in several pieces
        return torch.from_numpy(np.array(image))
    return from_dlpack(flat).view(image.height, image.width, 4)


def _orientation(image: Image.Image) -> int:
    """Return which of `ORIENTATIONS` a loaded picture still needs; a damaged tag counts as none.

    To look for the tag of a PNG that is not loaded would load it, and an error of that would be lost here.
    Pillow has turned a TIFF as it loaded it.
    """
    if image.format == "TIFF" or not image.info.keys() & TAGGED:
        return 1
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # hostile bytes: what the readers raise on them is not documented
        return 1
    return value if isinstance(value, int) else 1
