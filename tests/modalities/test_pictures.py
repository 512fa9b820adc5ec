import csv
import io
import json
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from atlas_ray.errors import PictureError
from atlas_ray.modalities import pictures
from atlas_ray.modalities.limits import DEFAULT_LIMITS, PictureLimits
from atlas_ray.modalities.pictures import _in_place, decode, decode_batch, decoding_pool
from atlas_ray.modalities.plain_jpegs import decode_plain_jpeg
from tests.support.damaged_pictures import damaged_pictures, encoded, faults, judge, pillow_refuses, whole_pictures

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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "TIFF"])
@pytest.mark.parametrize(("size", "least"), [((1, 1), 2), ((2, 2), 3), ((7, 5), 8), ((31, 20), 32)])
def test_a_pixel_that_counts_visits_is_no_picture(kind: str, size: tuple[int, int], least: int) -> None:
    content = encoded(Image.new("RGB", size), kind)
    with pytest.raises(PictureError) as error:
        decode(content, 32, DEFAULT_LIMITS if least == 2 else PictureLimits(min_side_px=least))
    assert (error.value.code, f"{size[0]}x{size[1]}" in error.value.message) == ("too_small", True)
    assert decode(content, 32, PictureLimits(min_side_px=least - 1)).width_px == size[0]


@pytest.mark.parametrize("size", [(2, 1), (1, 300)])
def test_a_picture_with_one_longer_side_is_read(size: tuple[int, int]) -> None:
    assert decode(encoded(Image.new("RGB", size), "PNG"), 32).width_px == size[0]


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_alpha_lies_on_white(mode: str) -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    pixels = decode(encoded(image.convert(mode)), 64).pixels
    assert pixels[:, 32, 8].tolist() == [255, 255, 255]
    assert pixels[:, 32, 56].tolist() != [255, 255, 255]


UNDO = {
    1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
}  # fmt: skip
"""What has to be done to an upright picture so that each orientation turns it back."""
LOSSLESS: dict[str, dict[str, object]] = {
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "JPEG": {"quality": 98},
}
TAGS: dict[str, tuple[str, dict[str, object]]] = {
    "JPEG": ("JPEG", LOSSLESS["JPEG"]), "PNG": ("PNG", {}), "WebP": ("WEBP", LOSSLESS["WEBP"]), "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}), "AVIF": ("AVIF", LOSSLESS["AVIF"]),
}  # fmt: skip


def upright() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)).resize((240, 160))


def stored(orientation: int) -> Image.Image:
    image = upright()
    for operation in UNDO[orientation]:
        image = image.transpose(operation)
    return image


def far_from_upright(data: bytes) -> int:
    wanted = decode(encoded(upright()), 48).pixels.int()
    return int((decode(data, 48).pixels.int() - wanted).abs().max())


@pytest.mark.parametrize("kind", TAGS)
@pytest.mark.parametrize("orientation", UNDO)
def test_each_orientation_of_each_format_is_undone_once(kind: str, orientation: int) -> None:
    image_format, options = TAGS[kind]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored(orientation), image_format, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:  # the file does say so, an AVIF by its own irot and imir
        assert image.getexif().get(0x0112, 1) == orientation
    assert far_from_upright(data) <= 12, "the colours of lossy formats differ a little"
    assert orientation == 1 or far_from_upright(encoded(stored(orientation))) > 60, "the picture tells them apart"


def with_chunk(png: bytes, kind: bytes, data: bytes, *, before: bytes) -> bytes:
    chunk = len(data).to_bytes(4) + kind + data
    at = png.index(before) - 4
    return png[:at] + chunk + zlib.crc32(chunk[4:]).to_bytes(4) + png[at:]


@pytest.mark.parametrize("orientation", UNDO)
def test_an_orientation_behind_the_pixels_of_a_png_counts(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    png = with_chunk(encoded(stored(orientation)), b"eXIf", exif.tobytes()[6:], before=b"IEND")
    assert far_from_upright(png) <= 2


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_orientation_in_xmp_counts_in_every_format(orientation: int) -> None:
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    for kind in ("JPEG", "WEBP"):
        assert far_from_upright(encoded(stored(orientation), kind, xmp=xmp, **LOSSLESS[kind])) <= 12, kind
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    assert far_from_upright(with_chunk(encoded(stored(orientation)), b"iTXt", text, before=b"IDAT")) <= 2


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        assert far_from_upright(encoded(upright(), kind, exif=exif, **LOSSLESS.get(kind, {}))) <= 12, kind


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


@pytest.mark.long
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


WHOLE = whole_pictures(7)


def every_damage(data: bytes) -> Iterator[tuple[str, bytes]]:
    size = len(data)
    for tenth in range(10):
        at = size * tenth // 10
        yield f"cut at {tenth}/10", data[:at]
        middle = min(at + 7, size - 1)
        yield f"flipped at {tenth}/10", data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]
        yield f"zeroed at {tenth}/10", data[:at] + bytes(min(60, size - at)) + data[at + 60 :]
        yield f"inserted at {tenth}/10", data[:at] + b"\x07rubbish\xff" + data[at:]
    yield "cut in its last bytes", data[:-2]
    yield "rubbish behind it", data + b"\0rubbish" * 9


@pytest.mark.parametrize(("kind", "data"), WHOLE, ids=[kind for kind, _ in WHOLE])
def test_what_pillow_refuses_is_refused(kind: str, data: bytes) -> None:
    assert outcome(data) == "decodable"
    refused = {name: outcome(bad) for name, bad in every_damage(data) if pillow_refuses(bad)}
    assert {f"cut at {tenth}/10" for tenth in range(5 if kind != "GIF" else 2)} <= refused.keys()
    codes = {"empty", "truncated", "corrupt", "not_an_image", "unsupported_format"}
    assert {name: code for name, code in refused.items() if code not in codes} == {}
    if kind == "PNG":  # and here each byte of each chunk counts, to the last
        assert [name for name, bad in every_damage(data) if outcome(bad) == "decodable"] == ["rubbish behind it"]


@pytest.mark.long
def test_fuzzed_pictures_are_judged_as_pillow_does_and_quickly() -> None:
    damaged = list(damaged_pictures(350, seed=11))
    assert len({(kind, damage) for kind, damage, _ in damaged}) == 35
    verdicts = [(kind, damage, judge(data), data) for kind, damage, data in damaged]
    assert [(kind, damage, fault) for kind, damage, one, data in verdicts for fault in faults(one, data)] == []
    assert 100 < sum(one.accepted for *_, one, _ in verdicts) < 250, "some damage does not matter"


def test_a_png_with_one_wrong_byte_is_no_picture_with_black_rows() -> None:
    data = encoded(Image.effect_noise((200, 200), 60).convert("RGB"))
    at = data.index(b"IDAT") + len(data) * 4 // 10
    with pytest.raises(PictureError) as error:
        decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], 64)
    assert (error.value.code, "IDAT" in error.value.message) == ("corrupt", True)


@pytest.mark.long
def test_what_is_made_to_be_slow_is_refused_or_quick() -> None:
    small = encoded(Image.new("RGB", (20, 20)))
    empty = (0).to_bytes(4) + b"abCd" + zlib.crc32(b"abCd").to_bytes(4)
    flood = small[:33] + empty * 2_000_000 + small[33:]
    gif = encoded(Image.new("P", (20, 20)), "GIF")
    canvas = gif[:6] + (60_000).to_bytes(2, "little") + (1_000).to_bytes(2, "little") + gif[10:]
    for data, wanted in ((flood, "corrupt"), (canvas, "decodable")):
        started = time.process_time()
        assert outcome(data) == wanted
        assert time.process_time() - started < 1


@pytest.mark.long
def test_a_large_picture_is_reduced_before_it_is_resized_and_looks_the_same() -> None:
    small = Image.fromarray(np.random.default_rng(2).integers(0, 255, (6, 6, 4), dtype=np.uint8))
    large = small.resize((1500, 900), Image.Resampling.BICUBIC)
    for mode, kind in (("RGBA", "PNG"), ("RGB", "WEBP"), ("L", "BMP"), ("RGB", "TIFF")):
        image = large.convert(mode)
        white = Image.alpha_composite(Image.new("RGBA", large.size, "white"), image.convert("RGBA")).convert("RGB")
        wanted = white.resize((64, 64), Image.Resampling.BILINEAR)
        got = decode(encoded(image, kind, **LOSSLESS.get(kind, {})), 64).pixels.permute(1, 2, 0).numpy()
        assert np.abs(got.astype(int) - np.asarray(wanted).astype(int)).mean() < 3, kind
    deep = Image.fromarray((np.asarray(large.convert("L")).astype(np.uint16) << 8) + 99)
    flat = decode(encoded(large.convert("L")), 64).pixels.int()
    assert (decode(encoded(deep), 64).pixels.int() - flat).abs().max() <= 1


def test_a_batch_keeps_its_order_and_names_what_it_refused() -> None:
    good = [encoded(Image.new("RGB", (10, 10), (shade, 0, 0))) for shade in (50, 100, 150)]
    pixels, refused = decode_batch([good[0], b"", good[1], b"text", good[2]], 32, pool=decoding_pool(3))
    assert pixels.shape == (5, 3, 32, 32)
    assert pixels[:, 0, 5, 5].tolist() == [50, 0, 100, 0, 150]
    assert {index: error.code for index, error in refused.items()} == {1: "empty", 3: "not_an_image"}


def test_a_batch_is_decoded_for_a_caller_that_runs_a_network() -> None:
    contents = [encoded(Image.new("RGB", (10, 10), (shade, 0, 0))) for shade in (50, 100)]
    with torch.inference_mode():
        pixels, refused = decode_batch(contents, 32, pool=decoding_pool(3))
    assert (pixels[:, 0, 5, 5].tolist(), refused) == ([50, 100], {})


def test_the_threads_that_decode_are_those_of_the_process_and_leave_the_others_theirs() -> None:
    own, found = torch.get_num_threads(), list[int]()
    torch.set_num_threads(3)
    try:
        pool = decoding_pool(2)
        assert decoding_pool(2) is pool
        assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert (found, torch.get_num_threads()) == ([3], 3)
    finally:
        torch.set_num_threads(own)


def detailed(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(sum(size)).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("size", [(2, 1), (150, 150), (299, 224), (224, 301), (601, 450), (1203, 1601), (401, 2100)])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 40}, {"mode": "L"}])
def test_a_plain_jpeg_is_what_pillow_makes_of_it(size: tuple[int, int], options: dict[str, Any]) -> None:
    mode = {"mode": "RGB", **options}.pop("mode")
    data = encoded(detailed(size, mode), "JPEG", **{name: one for name, one in options.items() if name != "mode"})
    plain = decode_plain_jpeg(data, 300, DEFAULT_LIMITS)
    assert (plain is None) == (max(size) == 2100), "a long one is left to Pillow"
    other = with_segment(data, 0xE1, b"neither EXIF nor XMP")
    assert decode_plain_jpeg(other, 300, DEFAULT_LIMITS) is None
    one, two = decode(data, 150), decode(other, 150)
    assert (one.width_px, one.height_px) == (two.width_px, two.height_px) == size
    assert (one.pixels.int() - two.pixels.int()).abs().max() <= 1


def with_segment(jpeg: bytes, kind: int, data: bytes) -> bytes:
    return jpeg[:2] + bytes([0xFF, kind]) + (len(data) + 2).to_bytes(2) + data + jpeg[2:]


def test_what_is_no_plain_jpeg_is_left_to_pillow() -> None:
    whole = encoded(detailed((240, 160)), "JPEG")
    assert decode_plain_jpeg(whole, 300, DEFAULT_LIMITS) is not None
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = {
        "none": b"",
        "PNG": encoded(detailed((24, 16))),
        "for print": encoded(detailed((24, 16), "CMYK"), "JPEG"),
        "turned": encoded(detailed((24, 16)), "JPEG", exif=exif),
        "several": with_segment(whole, 0xE2, b"MPF\0"),
        "long header": whole[:2] + bytes.fromhex("ffe00002") * 200 + whole[2:],
        "cut": whole[:-300],
        "cut in its header": whole[:90],
        "rubbish before a segment": whole[:20] + b"\7" + whole[20:],
        "damaged": whole[:-200] + bytes(30) + whole[-170:],
    }
    assert {name for name, data in odd.items() if decode_plain_jpeg(data, 300, DEFAULT_LIMITS) is not None} == set()
    for limits in (PictureLimits(max_bytes=99), PictureLimits(max_pixels=99), PictureLimits(min_side_px=241)):
        assert decode_plain_jpeg(whole, 300, limits) is None


def test_pixels_in_several_pieces_are_copied() -> None:
    image = detailed((4000, 1100))
    with pytest.raises(ValueError, match="contiguous"):
        pa.array(image)
    assert _in_place(image).equal(torch.from_numpy(np.array(image)))
    whole = _in_place(image.crop((0, 0, 500, 500)))
    assert whole[:, :, :3].equal(torch.from_numpy(np.array(image.crop((0, 0, 500, 500)))))


@pytest.mark.long
def test_all_ways_to_the_pixels_of_real_pictures_are_one(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = json.loads((test_data / "myntra" / "catalog.json").read_text())["images"]
    files = [(test_data / "myntra" / one["filename"]).read_bytes() for one in catalog if one["split"] == "test"]
    assert len(files) > 1500

    def decoded() -> torch.Tensor:
        pixels, refused = decode_batch(files, 100, pool=decoding_pool())
        assert not refused
        return pixels

    plain = decoded()
    monkeypatch.setattr(pictures, "decode_plain_jpeg", lambda *_: None)
    in_place = decoded()
    monkeypatch.setattr(pictures, "_in_place", lambda image: torch.from_numpy(np.array(image)))
    copied = decoded()
    assert in_place.equal(copied)
    assert (plain.int() - copied.int()).abs().max() <= 1


def with_scans(side_px: int, more: int) -> bytes:
    """Return a progressive JPEG whose last scan stands so many times more."""
    buffer = io.BytesIO()
    Image.new("L", (side_px, side_px), 128).save(buffer, "JPEG", progressive=True, quality=30)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + more * last + data[-2:]


def test_a_jpeg_of_many_scans_costs_no_more_than_others() -> None:
    assert outcome(with_scans(64, 200)) == "decodable"  # of small ones as many as one likes
    assert outcome(with_scans(4000, 5)) == "decodable"
    bomb = with_scans(4000, 20_000)  # 0.7 MB, which would take minutes to decode
    started = time.process_time()
    assert outcome(bomb) == "corrupt"
    assert time.process_time() - started < 5
    with pytest.raises(PictureError, match=r"a JPEG of 4000x4000 pixels in 2\d{4} scans, where ten are usual"):
        decode(bomb, 64)
