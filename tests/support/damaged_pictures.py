"""Damaged pictures of every format against Pillow's own judgement."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from atlas_ray.errors import PictureError
from atlas_ray.modalities.picture_files import FORMATS
from atlas_ray.modalities.pictures import decode

Bytes = Callable[[bytes, np.random.Generator], bytes]
SLOW_S = 1.0


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :]


def _zero(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
    return (data[:at] + bytes(length) + data[at + length :])[: len(data)]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 50))) + data[at:]


def _append(data: bytes, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 500)))


DAMAGES: dict[str, Bytes] = {"cut": _cut, "flip": _flip, "zero": _zero, "insert": _insert, "append": _append}


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the bytes of a picture in a format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole_pictures(seed: int) -> list[tuple[str, bytes]]:
    """Return good pictures, each with the name of its format: of each several kinds of encoding."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    picture = coarse.resize((240, 180), Image.Resampling.BICUBIC)
    clear = picture.copy()
    clear.putalpha(Image.fromarray(rng.integers(0, 255, (180, 240), dtype=np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    tagged: dict[str, object] = {"exif": exif}
    others = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    made: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("JPEG", picture, tagged), ("JPEG", picture, {"progressive": True}), ("JPEG", picture.convert("CMYK"), {}),
        ("PNG", picture, tagged), ("PNG", clear, {}), ("PNG", picture.quantize(32), {}), ("PNG", picture, others),
        ("GIF", picture, {}), ("GIF", picture, others),
        ("WEBP", picture, tagged), ("WEBP", clear, {"lossless": True}), ("WEBP", picture, others),
        ("BMP", picture, {}), ("BMP", picture.quantize(32), {}),
        ("AVIF", picture, {"speed": 10}), ("AVIF", clear, {"speed": 10, **tagged}),
        ("TIFF", picture, tagged), ("TIFF", picture, {"compression": "tiff_lzw", **tagged}),
        ("TIFF", picture, {"compression": "tiff_adobe_deflate"}), ("TIFF", picture, {"compression": "jpeg"}),
        ("TIFF", picture.convert("1"), {"compression": "group4"}),
    ]  # fmt: skip
    return [(kind, encoded(image, kind, **options)) for kind, image, options in made]


def damaged_pictures(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield format, damage and bytes; formats and damages take turns, so that each gets its share."""
    rng = np.random.default_rng(seed)
    pictures: dict[str, list[bytes]] = {}
    for kind, data in whole_pictures(seed):
        pictures.setdefault(kind, []).append(data)
    names = list(DAMAGES)
    for number in range(count):
        kind, damage = FORMATS[number % len(FORMATS)], names[number // len(FORMATS) % len(names)]
        data = pictures[kind][int(rng.integers(len(pictures[kind])))]
        yield kind, damage, DAMAGES[damage](data, rng)


def pillow_refuses(data: bytes) -> bool:
    """Tell whether Pillow finds fault with a file: as it verifies it, or as it decodes all of it."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.verify()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
    except Exception:  # what Pillow raises on damaged files is not documented
        return True
    return False


@dataclass(frozen=True)
class Verdict:
    """What became of a damaged picture here."""

    accepted: bool
    error: str
    """The code; for what is no `PictureError` the name of its class."""
    seconds: float


def judge(data: bytes, size_px: int = 64) -> Verdict:
    """Decode a picture as all jobs do."""
    started = time.process_time()
    error = ""
    try:
        decode(data, size_px)
    except PictureError as refused:
        error = refused.code
    except BaseException as wrong:  # it is told, and never expected
        error = type(wrong).__name__
    return Verdict(not error, error, time.process_time() - started)


def faults(verdict: Verdict, data: bytes) -> list[str]:
    """Return what is wrong with our verdict on a damaged picture; nothing where it is right."""
    found = []
    if verdict.accepted and pillow_refuses(data):
        found.append("accepted, and Pillow refuses it")
    if verdict.error[:1].isupper():
        found.append(verdict.error)
    if verdict.seconds > SLOW_S:
        found.append(f"{verdict.seconds:.1f} s")
    return found
