import csv
import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atlas_ray.errors import PictureError
from atlas_ray.images import decode, decode_batch
from atlas_ray.picture_limits import PictureLimits

# What the CSV of the odd pictures leaves to us.
POLICY = {
    "wuffs__peacock.s-very-weird.jpeg": "decodable",  # odd chroma subsampling: libjpeg reads it
    "sharp__full-transparent.png": "decodable",  # all white
    "pillow__png_decompression_dos.png": "corrupt",  # text chunks that expand without end
    "wuffs__frame-out-of-bounds.gif": "decodable",  # the part on the canvas counts
    "image-size__sample-garbled.avif": "corrupt",
    "image-size__sample.heic": "unsupported_format",  # the HEIF family needs another library
    "exif-samples__samplefilehub.heif": "unsupported_format",
    "file-type__fixture.jxl": "unsupported_format",
    "file-type__fixture.jp2": "unsupported_format",
    "pillow__hopper_g4.tif": "decodable",  # TIFF is taken, its first page
}


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def outcome(data: bytes) -> str:
    try:
        picture = decode(data, 64)
    except PictureError as error:
        return error.code if error.message else "no message"
    assert picture.pixels.shape == (3, 64, 64)
    assert picture.pixels.dtype == torch.uint8
    return "decodable"


def test_every_odd_picture_gets_its_outcome(test_data: Path) -> None:
    folder = test_data / "odd_images"
    wrong = []
    with (folder / "images.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 67
    for row in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow warns of damaged EXIF data
            got = outcome((folder / row["file"]).read_bytes())
        if row["expected"] == "policy":
            right = got == POLICY[row["file"]]
        else:
            right = (got == "decodable") == (row["expected"] == "decodable")
        if not right:
            wrong.append((row["file"], row["expected"], got))
    assert wrong == []


def test_a_full_transparent_picture_is_white() -> None:
    assert decode(encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 0))), 32).pixels.min() == 255


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_alpha_lies_on_white(mode: str) -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    pixels = decode(encoded(image.convert(mode)), 64).pixels
    assert pixels[:, 32, 8].tolist() == [255, 255, 255]
    assert pixels[:, 32, 56].tolist() != [255, 255, 255]


def test_all_exif_orientations_look_the_same() -> None:
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)).resize((240, 160))
    wanted = decode(encoded(upright), 48).pixels.int()
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    for orientation, operations in undo.items():
        stored = upright
        for operation in operations:
            stored = stored.transpose(operation)
        exif = Image.Exif()
        exif[0x0112] = orientation
        got = decode(encoded(stored, "PNG", exif=exif), 48).pixels.int()
        assert (got - wanted).abs().max() <= 2, orientation


def test_sixteen_bits_and_cmyk() -> None:
    grey = Image.fromarray(np.full((16, 16), 40000, dtype=np.uint16))
    assert decode(encoded(grey), 32).pixels.float().mean() == pytest.approx(40000 / 256, abs=1)
    red = Image.new("RGB", (64, 64), (200, 30, 30)).convert("CMYK")
    pixels = decode(encoded(red, "JPEG", quality=95), 32).pixels.float().mean((1, 2))
    assert pixels[0] > 150 > 80 > pixels[1]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue", "green")]
    for kind in ("GIF", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert decode(data, 32).pixels.float().mean((1, 2)).tolist() == pytest.approx([255, 0, 0], abs=6)


def test_a_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same() -> None:
    small = Image.fromarray(np.random.default_rng(1).integers(0, 255, (6, 6, 3), dtype=np.uint8))
    large = small.resize((2400, 2400), Image.Resampling.BICUBIC)
    difference = decode(encoded(large, "JPEG", quality=95), 64).pixels.int() - decode(encoded(large), 64).pixels.int()
    assert difference.abs().float().mean() < 3


def test_limits_hold_before_decoding() -> None:
    data = encoded(Image.new("RGB", (100, 100)))
    for limits, code in (
        (PictureLimits(max_bytes=10), "too_large"),
        (PictureLimits(max_pixels=9_999), "too_many_pixels"),
    ):
        with pytest.raises(PictureError) as error:
            decode(data, 32, limits)
        assert error.value.code == code
    first, *others = [Image.new("RGB", (8, 8), (20 * shade, 0, 255 - 20 * shade)) for shade in range(12)]
    for kind in ("GIF", "WEBP"):
        animated = encoded(first, kind, save_all=True, append_images=others)
        with pytest.raises(PictureError) as error:
            decode(animated, 32, PictureLimits(max_frames=3))
        assert error.value.code == "too_many_frames"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_no_prefix_of_a_file_raises_anything_else(kind: str) -> None:
    data = encoded(Image.effect_noise((40, 30), 80).convert("RGB"), kind)
    assert outcome(data) == "decodable"
    codes = {outcome(data[:length]) for length in range(0, len(data) - 20, max(1, len(data) // 60))}
    assert codes <= {"empty", "corrupt", "truncated", "not_an_image", "decodable"}
    assert "empty" in codes


def test_a_batch_keeps_its_order_and_names_what_it_refused() -> None:
    good = [encoded(Image.new("RGB", (10, 10), (shade, 0, 0))) for shade in (50, 100, 150)]
    with ThreadPoolExecutor(3) as pool:
        pixels, refused = decode_batch([good[0], b"", good[1], b"text", good[2]], 32, pool=pool)
    assert pixels.shape == (5, 3, 32, 32)
    assert pixels[:, 0, 5, 5].tolist() == [50, 0, 100, 0, 150]
    assert {index: error.code for index, error in refused.items()} == {1: "empty", 3: "not_an_image"}
