import base64
import html
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atlas_ray.reports.contact_sheet import MAX_CELLS, Cell, Section, write_contact_sheet
from atlas_ray.reports.page import MAX_BYTES
from tests.support.parts import Page, check_self_contained


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_sheet_with_a_broken_picture_and_hostile_captions(tmp_path: Path) -> None:
    hostile = '<script src="https://evil.example/x.js"></script>"&\x00\u202e\ud800\nsecond line'
    cells = [Cell(picture(colour), f"{colour} 0.99") for colour in ("red", "lime", "blue", "black", "gray", "teal")]
    cells += [
        Cell(b"\xff\xd8 broken", "broken picture"),
        Cell(picture("red"), hostile),
        Cell(picture("red"), "x" * 9999),
    ]
    sections = [Section("Surest <rejected>", cells), Section("Least sure", [])]
    write_contact_sheet(str(tmp_path / "sheet"), sections)

    text = (tmp_path / "sheet" / "contact-sheet.html").read_text()
    page = Page(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8
    assert sum("src" in attributes for _, attributes in page.tags) == 8
    check_self_contained(text)
    for attributes in images:
        head, _, data = (attributes["src"] or "").partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
            assert shown.size == (160, 160)
    assert 'name="viewport"' in text
    joined = "".join(page.text)
    assert html.unescape("Surest <rejected>") in joined
    assert '<script src="https://evil.example/x.js"></script>"& second line' in joined
    assert "corrupt" in joined
    assert "x" * 200 not in joined

    with Image.open(tmp_path / "sheet" / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
        rgb = np.asarray(sheet.convert("RGB"))
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        assert (rgb == colour).all(axis=2).sum() >= 160 * 160
    ink = (rgb < 100).all(axis=2) & (rgb.max(axis=2) > 0)  # letters, and not the black picture
    assert ink.sum() > 500


@pytest.mark.long
def test_a_full_sheet_of_noise_stays_small(tmp_path: Path) -> None:
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)).save(noise, "PNG")
    cells = [Cell(noise.getvalue(), '"' * 999)] * MAX_CELLS
    write_contact_sheet(str(tmp_path), [Section("noise", cells)])
    assert (tmp_path / "contact-sheet.html").stat().st_size < MAX_BYTES
    with pytest.raises(ValueError, match="301 pictures"):
        write_contact_sheet(str(tmp_path), [Section("noise", [*cells, cells[0]])])
