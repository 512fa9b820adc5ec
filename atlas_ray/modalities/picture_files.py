"""Picture files, opened in the same way by every command, and refused with an error code if they are damaged."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from atlas_ray.errors import PictureError
from atlas_ray.modalities.limits import DEFAULT_LIMITS, PictureLimits, scans

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "TIFF")
"""The formats that are decoded (a multi-picture MPO is a JPEG); others are refused before any decoder sees them."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PNG_CHUNKS = 100_000
"""The most chunks of a PNG: 32 MiB make 4,096 of the usual size, and millions of empty ones take seconds to read."""
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


@contextmanager
def open_picture(data: bytes, limits: PictureLimits = DEFAULT_LIMITS) -> Iterator[Image.Image]:
    """Open a picture file: its header is checked, and no pixel decoded.

    What goes wrong with the picture inside the block is refused in the same way.

    Args:
        data: The file's bytes.
        limits: What to refuse.

    Raises:
        PictureError: with the code empty, too_large, too_many_pixels, too_many_frames, too_small,
            truncated, not_an_image, unsupported_format or corrupt.
    """
    if not data:
        raise PictureError("empty", "the file has no bytes")
    if len(data) > limits.max_bytes:
        raise PictureError("too_large", f"{len(data)} bytes; at most {limits.max_bytes} are read")
    if data.startswith(PNG_SIGNATURE):
        _check_png(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, data, limits)
            yield image
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


def _check_png(data: bytes) -> None:
    """Refuse a PNG with a chunk that is cut or damaged: Pillow looks at no checksum from the pixels on."""
    view = memoryview(data)
    at = len(PNG_SIGNATURE)
    for _ in range(MAX_PNG_CHUNKS):
        if at + 8 > len(data):
            raise PictureError("truncated", f"the PNG ends at byte {len(data)}, before its last chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise PictureError("truncated", f"the PNG ends at byte {len(data)}, in its chunk {kind!r}")
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise PictureError("corrupt", f"the checksum of the PNG's chunk {kind!r} at byte {at} is wrong")
        if kind == b"IEND":
            return
        at = end + 4
    raise PictureError("corrupt", f"a PNG of more than {MAX_PNG_CHUNKS} chunks")


def _check_header(image: Image.Image, data: bytes, limits: PictureLimits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError("corrupt", f"the header declares {width}x{height} pixels")
    if max(width, height) < limits.min_side_px:
        raise PictureError("too_small", f"{width}x{height} pixels; a side of at least {limits.min_side_px} is expected")
    if width * height > limits.max_pixels:
        raise PictureError("too_many_pixels", f"{width}x{height} pixels; at most {limits.max_pixels} are decoded")
    if image.format in ("JPEG", "MPO") and not limits.allow_scans(data, width, height):
        raise PictureError("corrupt", f"a JPEG of {width}x{height} pixels in {scans(data)} scans, where ten are usual")
    if image.format == "GIF":
        # Each frame but the first follows a block terminator, so this is an upper bound; counting
        # them truly would decode them.
        frames = data.count(b"\x00,") + 1
    else:
        frames = 1 if image.format == "TIFF" else int(getattr(image, "n_frames", 1))
    if frames > limits.max_frames:
        raise PictureError("too_many_frames", f"{frames} frames; at most {limits.max_frames} are taken")


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
