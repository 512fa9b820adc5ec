"""Pictures: bytes to an RGB tensor of the model's size, in one way for every job.

A picture is squashed to a square, as Atlas does (SIGIR eCom 2020, section 4), so its EXIF
orientation may be applied after the resize. Transparent pixels become white. Of an animation the
first frame counts.
"""

import io
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate

from atlas_ray.errors import PictureError
from atlas_ray.picture_limits import DEFAULT_LIMITS, PictureLimits

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "TIFF")
"""What is decoded (a multi-picture MPO is a JPEG). Everything else is refused before any decoder sees it."""

ORIENTATION_TAG = 0x0112
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
KNOWN_OTHERS = {
    b"\x1f\x8b": "gzip data",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<!DO": "HTML",
    b"<htm": "HTML",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\x00\x00\x01\x00": "ICO",
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
    """For each size (count, 3, size, size) uint8, RGB; zeros where a picture was refused."""
    width_px: "np.ndarray[tuple[int], np.dtype[np.int32]]"
    """(count,), of the file."""
    height_px: "np.ndarray[tuple[int], np.dtype[np.int32]]"
    refused: dict[int, PictureError]
    """By index."""


def decode(data: bytes, size_px: int, limits: PictureLimits = DEFAULT_LIMITS) -> Picture:
    """Decode a picture and resize it to a square.

    Args:
        data: The file's bytes.
        size_px: The side of the result.
        limits: What to refuse before decoding.

    Raises:
        PictureError: with the code empty, too_large, too_many_pixels, too_many_frames, truncated,
            not_an_image, unsupported_format or corrupt.
    """
    (pixels,), width, height = _decode(data, (size_px,), limits)
    return Picture(pixels, width, height)


def decode_batch(
    contents: Sequence[bytes],
    size_px: int,
    *,
    limits: PictureLimits = DEFAULT_LIMITS,
    pool: Executor | None = None,
) -> tuple[Tensor, dict[int, PictureError]]:
    """Decode many pictures, in the pool's threads where one is given.

    Returns:
        (count, 3, size, size) uint8, zeros where a picture was refused, and the refusals by index.
    """
    batch = decode_batch_at(contents, (size_px,), limits=limits, pool=pool)
    return batch.pixels[0], batch.refused


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
    if not data:
        raise PictureError("empty", "the file has no bytes")
    if len(data) > limits.max_bytes:
        raise PictureError("too_large", f"{len(data)} bytes; at most {limits.max_bytes} are read")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            _check_header(image, data, limits)
            orientation = _orientation(image)
            pixels = _pixels(image, max(sizes_px))
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("too_many_pixels", str(error)) from None
    except PictureError:
        raise
    except Exception as error:  # hostile bytes: what the decoders raise on them is not documented
        text = (str(error).splitlines() or [type(error).__name__])[0]
        cut = "truncated" in text or "incomplete" in text
        raise PictureError("truncated" if cut else "corrupt", text) from None
    return [_square(pixels, size, orientation) for size in sizes_px], width, height


def _square(pixels: Tensor, size_px: int, orientation: int) -> Tensor:
    """Resize (3, height, width) to (3, size, size), upright."""
    square = interpolate(pixels[None], (size_px, size_px), mode="bilinear", antialias=True)[0]
    if orientation in ORIENTATIONS:
        transpose, flip_height, flip_width = ORIENTATIONS[orientation]
        square = square.transpose(1, 2) if transpose else square
        flips = [axis for axis, flip in ((1, flip_height), (2, flip_width)) if flip]
        square = square.flip(flips) if flips else square
    return square


def _check_header(image: Image.Image, data: bytes, limits: PictureLimits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError("corrupt", f"the header declares {width}x{height} pixels")
    if width * height > limits.max_pixels:
        raise PictureError("too_many_pixels", f"{width}x{height} pixels; at most {limits.max_pixels} are decoded")
    if image.format == "GIF":
        # Each frame but the first follows a block terminator, so this is an upper bound; counting
        # them truly would decode them.
        frames = data.count(b"\x00,") + 1
    else:
        frames = 1 if image.format == "TIFF" else int(getattr(image, "n_frames", 1))
    if frames > limits.max_frames:
        raise PictureError("too_many_frames", f"{frames} frames; at most {limits.max_frames} are taken")


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; damaged EXIF data counts as none."""
    if "exif" not in image.info and image.format not in ("TIFF", "PNG"):
        return 1
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # hostile bytes, as in `decode`
        return 1
    return value if isinstance(value, int) else 1


def _pixels(image: Image.Image, size_px: int) -> Tensor:
    """Return the picture's pixels, (3, height, width) uint8, on white where it is transparent."""
    if image.format in ("JPEG", "MPO"):  # libjpeg decodes a large one at a half, quarter or eighth
        image.draft(None, (2 * size_px, 2 * size_px))
    image.load()
    if image.mode.startswith("I;16") or image.mode == "I":  # 16-bit grey
        grey = np.asarray(image) >> 8
        array = np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    elif image.mode == "F":
        raise PictureError("unsupported_format", "32-bit float pixels; convert it to 8 bits")
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        array = np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    else:
        array = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1)


def _unidentified(data: bytes) -> PictureError:
    head = data[:64].lstrip()
    for magic, name in KNOWN_OTHERS.items():
        if head.startswith(magic):
            return PictureError("unsupported_format", f"{name}; expected one of {', '.join(FORMATS)}")
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
        return PictureError("unsupported_format", f"{head[8:12]!r} (HEIF family); convert it to JPEG")
    if head.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")) or (
        head[4:8] == b"ftyp"
    ):
        return PictureError("corrupt", f"the header starts as {head[:4]!r} but cannot be read")
    return PictureError("not_an_image", f"the first bytes are {head[:8]!r}")
