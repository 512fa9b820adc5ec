"""A contact sheet: pictures in a grid with captions, as one PNG and as one page that needs nothing else."""

import io
import os.path
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from atlas_ray.io import storage
from atlas_ray.reports.page import MAX_BYTES, THUMBNAIL_PX, document, gallery, plain, section, summary, thumbnail

MAX_CELLS = 300
"""Largest number of pictures in a sheet; more would not fit the size of a page."""
PAGE_BYTES = 100_000
"""Bytes reserved for the style and script of the page."""
COLUMNS = 6
GAP_PX = 14
LINE_PX = 16
CAPTION_LINES = 3
TITLE_PX = 40
INK, PAPER, MISSING = "#1a1a1a", "#ffffff", "#e4e4e4"


@dataclass(frozen=True)
class Cell:
    """A picture as the bytes of its file, and its caption."""

    picture: bytes
    caption: str


@dataclass(frozen=True)
class Section:
    """Cells under a title."""

    title: str
    cells: Sequence[Cell]


def write_contact_sheet(folder_uri: str, sections: Sequence[Section]) -> None:
    """Write `contact-sheet.png` and `contact-sheet.html` into a folder.

    Pictures are squashed to squares, as the models see them. One that cannot be decoded gets a cell
    that says why. The page requests nothing from outside, runs no script and is under 5 MB.

    Raises:
        ValueError: for more than `MAX_CELLS` cells.
    """
    count = sum(len(section.cells) for section in sections)
    if count > MAX_CELLS:
        raise ValueError(f"a contact sheet of {count} pictures; at most {MAX_CELLS} can be looked at")
    drawn = [
        (plain(section.title), [(thumbnail(cell.picture), plain(cell.caption)) for cell in section.cells])
        for section in sections
    ]
    storage.make_folder(folder_uri)
    storage.write_bytes(storage.join(folder_uri, "contact-sheet.png"), _png(drawn))
    storage.write_bytes(storage.join(folder_uri, "contact-sheet.html"), _html(drawn, max(count, 1)).encode())


Drawn = Sequence[tuple[str, Sequence[tuple[Image.Image | str, str]]]]
"""Titles with the thumbnails (or the error code of the picture) and captions below each."""


def _png(sections: Drawn) -> bytes:
    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    regular = ImageFont.truetype(os.path.join(folder, "DejaVuSans.ttf"), 12)
    bold = ImageFont.truetype(os.path.join(folder, "DejaVuSans-Bold.ttf"), 16)
    row_px = THUMBNAIL_PX + CAPTION_LINES * LINE_PX + GAP_PX
    heights_px = [TITLE_PX + max(1, -(-len(cells) // COLUMNS)) * row_px for _, cells in sections]
    width_px = GAP_PX + COLUMNS * (THUMBNAIL_PX + GAP_PX)
    sheet = Image.new("RGB", (width_px, GAP_PX + sum(heights_px)), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP_PX
    for (title, cells), height_px in zip(sections, heights_px, strict=True):
        draw.text((GAP_PX, top), _lines(title, bold, width_px - 2 * GAP_PX, 1)[0], INK, bold)
        if not cells:
            draw.text((GAP_PX, top + TITLE_PX), "none", INK, regular)
        for number, (picture, caption) in enumerate(cells):
            x = GAP_PX + number % COLUMNS * (THUMBNAIL_PX + GAP_PX)
            y = top + TITLE_PX - GAP_PX + number // COLUMNS * row_px
            if isinstance(picture, str):
                draw.rectangle((x, y, x + THUMBNAIL_PX - 1, y + THUMBNAIL_PX - 1), MISSING)
                draw.text((x + THUMBNAIL_PX // 2, y + THUMBNAIL_PX // 2), picture, INK, regular, anchor="mm")
            else:
                sheet.paste(picture, (x, y))
            for line, text in enumerate(_lines(caption, regular, THUMBNAIL_PX, CAPTION_LINES)):
                draw.text((x, y + THUMBNAIL_PX + 2 + line * LINE_PX), text, INK, regular)
        top += height_px
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _lines(text: str, font: ImageFont.FreeTypeFont, width_px: int, count: int) -> list[str]:
    """Break a text into at most `count` lines, between words if it can be; the last may end in an ellipsis."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width_px:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if font.getlength(lines[-1] + letter) > width_px:
                lines.append("")
            lines[-1] += letter
    if len(lines) > count:
        lines = lines[:count]
        while font.getlength(lines[-1] + "…") > width_px:
            lines[-1] = lines[-1][:-1]
        lines[-1] += "…"
    return lines


def _html(sections: Drawn, count: int) -> str:
    # 1,500 bytes a cell are for its caption (4 bytes a character, escaped) and tags.
    budget_bytes = (MAX_BYTES - PAGE_BYTES) // count - 1_500
    shown = sum(len(cells) for _, cells in sections)
    words = f"{shown} picture{'' if shown == 1 else 's'} in {len(sections)} group{'' if len(sections) == 1 else 's'}"
    parts = [section(title, gallery(cells, budget_bytes)) for title, cells in sections]
    return document("Contact sheet", [summary([words]), *parts])
