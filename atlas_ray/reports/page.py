"""A page in a single file, which has its style, its script and its pictures, and requests nothing.

What all pages look like, the endpoint's too, is in `look/look.css`.
"""

import base64
import hashlib
import html
import importlib.resources
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from atlas_ray.errors import FetchError, PictureError
from atlas_ray.io.objects import ObjectReader

MAX_BYTES = 5_000_000
"""Largest size of a page; a larger one is slow to open and too large to mail."""
MAX_TEXT_CHARACTERS = 160
THUMBNAIL_PX = 160
READERS = 16
GROUP = 16
"""Number of pictures whose files are held at a time; each may have 32 MiB."""
LOOK = importlib.resources.files("atlas_ray.reports") / "look"

DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src {hashes}; connect-src {connect}; base-uri 'none'; form-action 'none'">
<title>{title}</title><link rel="icon" href="data:,"><style>
{style}</style></head><body>
<header><h1>{title}</h1><p class="soft">{about}</p></header>
{bar}<main>
{body}
</main>
{data}{scripts}</body></html>
"""
CODE = re.compile("`([^`]*)`")
NOTHING = '<p class="soft">none</p>'


@dataclass(frozen=True)
class Share:
    """A number from 0 to 1, which a page writes as a percentage, with its interval; a difference of two in points."""

    value: float | None
    interval: tuple[float, float] | None = None
    signed: bool = False

    def __str__(self) -> str:
        if self.value is None:
            return ""
        return f"{100 * self.value:+.1f}" if self.signed else f"{self.value:.1%}"

    @property
    def range(self) -> str:
        """The interval in words; "" if there is none."""
        if self.interval is None:
            return ""
        low, high = (f"{100 * end:{'+' if self.signed else ''}.1f}" for end in self.interval)
        return f"{low} to {high}"


Cell = str | int | float | Share | None
"""A cell of a table. None is an unknown value, shown as an empty cell."""


def document(
    title: str,
    parts: Iterable[str],
    *,
    about: str = "",
    files: Sequence[str] = ("report",),
    data: object = None,
    connect: bool = False,
    bar: str = "",
) -> str:
    """Return a whole page.

    Args:
        title: Its name, as text.
        parts: Its sections, which are HTML already.
        about: What it is of, as text.
        files: The names of a style and a script in `look/`, each without its ending, beside `look.css`.
        data: What the scripts find as JSON in the element `data`.
        connect: Whether the scripts may ask the server that the page came from.
        bar: HTML between the head and the sections.
    """
    names = {entry.name for entry in LOOK.iterdir()}
    styles = ["look.css", *(f"{name}.css" for name in files if f"{name}.css" in names)]
    scripts = [_look(f"{name}.js") for name in files if f"{name}.js" in names]
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return DOCUMENT.format(
        hashes=" ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'",
        connect="'self'" if connect else "'none'",
        title=html.escape(plain(title)),
        about=html.escape(about),
        style="".join(map(_look, styles)),
        bar=bar,
        body="\n".join(parts),
        data="" if data is None else f'<script id="data" type="application/json">{json_text(data)}</script>\n',
        scripts="".join(f"<script>{script}</script>\n" for script in scripts),
    )


def json_text(value: object) -> str:
    """Return JSON that a script element can hold: no text of it ends the element, or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _look(name: str) -> str:
    return LOOK.joinpath(name).read_text(encoding="utf-8")


def section(title: str, *parts: str, kind: str = "") -> str:
    """Return a part of a page: a card with a heading."""
    head = f"<h2>{html.escape(plain(title))}</h2>" if title else ""
    return f'<section class="{f"card {kind}".strip()}">{head}{"".join(parts)}</section>'


def summary(sentences: Sequence[str], tiles: Sequence[tuple[str, Cell]] = ()) -> str:
    """Return the first part of a page, a summary in sentences, the first of them emphasized, and in numbers."""
    shown = "".join(
        f'<div class="tile"><b>{html.escape(_written(value))}</b><span>{html.escape(plain(name))}</span>'
        f"{_interval(value)}</div>"
        for name, value in tiles
        if value is not None
    )
    listed = f'<div class="tiles">{shown}</div>' if shown else ""
    return section("", *map(paragraph, sentences), listed, kind="summary")


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{html.escape(plain(text))}</h3>"


def paragraph(text: str) -> str:
    """Return a paragraph, which is not shortened; text between backticks is code."""
    marked = CODE.sub(r"<code>\1</code>", html.escape(text))
    return f"<p>{marked}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table, which a click on a column's name sorts; numbers stand at the right."""
    listed = [list(row) for row in rows]
    if not listed:
        return NOTHING
    numbers = [any(isinstance(row[column], int | float | Share) for row in listed) for column in range(len(head))]
    names = "".join(
        f'<th class="{"number" if number else "text"}">{html.escape(plain(name))}</th>'
        for name, number in zip(head, numbers, strict=True)
    )
    lines = ("".join(_cell(value, number) for value, number in zip(row, numbers, strict=True)) for row in listed)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Cell, number: bool) -> str:
    if not number:
        return f'<td class="text">{html.escape(plain(_written(value)))}</td>'
    known = value.value if isinstance(value, Share) else value
    sorts = f' data-value="{known:g}"' if isinstance(known, int | float) else ""
    return f'<td class="number"{sorts}>{html.escape(_written(value))}{_interval(value)}</td>'


def _written(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _interval(value: Cell) -> str:
    return f" <small>{value.range}</small>" if isinstance(value, Share) and value.range else ""


def gallery(cells: Sequence[tuple[Image.Image | str, str]], budget_bytes: int = 12_000) -> str:
    """Return pictures in a grid, each with its caption.

    Args:
        cells: Pictures, or a word for a missing one, with their captions.
        budget_bytes: What each picture may take of the page.
    """
    figures = [
        f"<figure>{shown(picture, budget_bytes)}<figcaption>{html.escape(plain(caption))}</figcaption></figure>"
        for picture, caption in cells
    ]
    return f'<div class="grid">{"".join(figures)}</div>' if figures else NOTHING


def strip(frames: Sequence[tuple[Image.Image, str]], budget_bytes: int) -> str:
    """Return pictures side by side, each with its caption, that together may take so much of the page."""
    each = budget_bytes // max(len(frames), 1)
    figures = (
        f"<figure>{shown(picture, each)}<figcaption>{html.escape(plain(caption))}</figcaption></figure>"
        for picture, caption in frames
    )
    return f'<div class="strip">{"".join(figures)}</div>'


def shown(picture: Image.Image | str, budget_bytes: int) -> str:
    """Return a picture, or a word if there is none."""
    if isinstance(picture, str):
        return f'<span class="missing">{html.escape(plain(picture))}</span>'
    return f'<img alt="" src="{jpeg_uri(picture, budget_bytes)}">'


def data_uri(content: bytes, kind: str) -> str:
    """Return a picture's file as text that a page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def jpeg_uri(picture: Image.Image, budget_bytes: int) -> str:
    """Encode a picture as well as the budget of text allows."""
    for quality in (85, 60, 30, 10):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        if 4 * buffer.tell() <= 3 * budget_bytes:  # base64 makes 4 bytes of 3
            break
    return data_uri(buffer.getvalue(), "jpeg")


def plain(text: str) -> str:
    """Return the text in one line of at most `MAX_TEXT_CHARACTERS`, without characters that cannot be printed."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 1] + "…"


def thumbnail(content: bytes | FetchError, size_px: int = THUMBNAIL_PX, *, whole: bool = False) -> Image.Image | str:
    """Return a small picture, or its error code.

    Args:
        content: The file.
        size_px: Its longer side.
        whole: Whether it keeps its shape; else it is squashed to a square, as the models see it.
    """
    if isinstance(content, FetchError):
        return content.code
    from atlas_ray.modalities.pictures import decode  # it imports torch, and many a page has no picture

    try:
        picture = decode(content, size_px)
    except PictureError as error:
        return error.code
    square = Image.fromarray(picture.pixels.permute(1, 2, 0).numpy())
    longer = max(picture.width_px, picture.height_px, 1)
    shape = [max(1, round(size_px * side / longer)) for side in (picture.width_px, picture.height_px)]
    return square.resize((shape[0], shape[1]), Image.Resampling.BICUBIC) if whole else square


def thumbnails(
    uris: Sequence[str | None], size_px: int = THUMBNAIL_PX, *, whole: bool = False
) -> list[Image.Image | str]:
    """Read pictures as `thumbnail` gives them, in their order; few of the files are held at a time."""
    return [thumbnail(content, size_px, whole=whole) for contents in picture_groups(uris) for content in contents]


def picture_groups(uris: Sequence[str | None]) -> Iterator[list[bytes | FetchError]]:
    """Read the files of pictures, `GROUP` at a time and in their order; each list is emptied before the next is read.

    "" and None give the error `no_picture`.
    """
    with ObjectReader(threads=READERS) as reader:
        for start in range(0, len(uris), GROUP):
            contents = _read(reader, uris[start : start + GROUP])
            yield contents
            contents.clear()


def read_pictures(uris: Iterable[str | None]) -> Mapping[str | None, bytes | FetchError]:
    """Read the files of a few pictures, which are held together, each once; "" and None give the error `no_picture`."""
    wanted = list({uri or None for uri in uris} | {None})
    with ObjectReader(threads=READERS) as reader:
        found = dict(zip(wanted, _read(reader, wanted), strict=True))
    return found | {"": found[None]}


def _read(reader: ObjectReader, uris: Sequence[str | None]) -> list[bytes | FetchError]:
    wanted = sorted({uri for uri in uris if uri})
    found = dict(zip(wanted, reader.read_many(wanted), strict=True))
    nothing = FetchError("no_picture", "the product has no picture that was scored")
    return [found[uri] if uri else nothing for uri in uris]
