"""A page that needs nothing else: no script and no request; its pictures are data in it."""

import base64
import html
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from PIL import Image

from atlas_ray.errors import FetchError, PictureError
from atlas_ray.io.objects import ObjectReader
from atlas_ray.modalities.pictures import decode

MAX_BYTES = 5_000_000
"""Of a page; a larger one is slow to open, and no mail takes it."""
MAX_TEXT_CHARACTERS = 160
THUMBNAIL_PX = 160
READERS = 16
GROUP = 16
"""Pictures whose files are held at a time; each may have 32 MiB."""

DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>
:root {{ color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }}
body {{ margin: 0 auto; max-width: 1200px; padding: 12px; }}
h1 {{ font-size: 1.4rem; margin: 8px 0; }}
h2 {{ font-size: 1.15rem; margin: 28px 0 8px; }}
p {{ margin: 6px 0; max-width: 80ch; }}
.grid {{ display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); }}
.wide {{ overflow-x: auto; }}
figure {{ margin: 0; min-width: 0; }}
figure img, .missing {{ aspect-ratio: 1; background: #8883; display: grid; place-items: center; width: 100%; }}
figure img.strip {{ aspect-ratio: auto; width: auto; }}
.cards {{ display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); }}
.card {{ display: grid; gap: 10px; grid-template-columns: 120px minmax(0, 1fr); align-items: start; margin: 0; }}
.card.whole {{ grid-column: 1 / -1; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); }}
@media (max-width: 700px) {{ .card.whole {{ grid-template-columns: minmax(0, 1fr); }} }}
.card p {{ font-size: .85rem; margin: 0 0 2px; overflow-wrap: anywhere; }}
.card p:first-child {{ font-size: .95rem; font-weight: 600; }}
.plot, .strip {{ background: #fff; max-width: 100%; height: auto; }}
figcaption {{ font-size: .85rem; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; font-size: .9rem; }}
th, td {{ border-bottom: 1px solid #8885; padding: 3px 10px 3px 0; text-align: left; }}
td {{ white-space: nowrap; }}
td.number, th.number {{ font-variant-numeric: tabular-nums; text-align: right; }}
</style></head><body>
{body}
</body></html>
"""


def document(title: str, parts: Iterable[str]) -> str:
    """Return a whole page of parts that are HTML already; the title is text."""
    return DOCUMENT.format(title=html.escape(plain(title)), body="\n".join(parts))


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{html.escape(plain(text))}</h{level}>"


def paragraph(text: str) -> str:
    """Return a paragraph; it is not shortened."""
    return f"<p>{html.escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers stand at the right, fractions with four places."""

    def cell(value: object, tag: str, number: bool) -> str:
        text = f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
        kind = ' class="number"' if number else ""
        return f"<{tag}{kind}>{html.escape(plain(text))}</{tag}>"

    listed = [list(row) for row in rows]
    if not listed:
        return "<p>none</p>"
    numbers = [any(isinstance(row[column], int | float) for row in listed) for column in range(len(head))]
    lines = ["".join(cell(value, "th", number) for value, number in zip(head, numbers, strict=True))]
    lines += ["".join(cell(value, "td", number) for value, number in zip(row, numbers, strict=True)) for row in listed]
    return '<div class="wide"><table>' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def gallery(cells: Sequence[tuple[Image.Image | str, str]], budget_bytes: int = 12_000) -> str:
    """Return pictures in a grid, each with its caption.

    Args:
        cells: A picture, or a word where there is none, and what stands below it.
        budget_bytes: What each picture may take of the page.
    """
    figures = []
    for picture, caption in cells:
        if isinstance(picture, str):
            shown = f'<span class="missing">{html.escape(plain(picture))}</span>'
        else:
            shown = f'<img alt="" src="{jpeg_uri(picture, budget_bytes)}">'
        figures.append(f"<figure>{shown}<figcaption>{html.escape(plain(caption))}</figcaption></figure>")
    return f'<div class="grid">{"".join(figures)}</div>' if figures else "<p>none</p>"


def card(picture: Image.Image | str, lines: Sequence[str], *, budget_bytes: int, strip: str = "") -> str:
    """Return one of `cards`: a picture, and beside it lines of text, the first one heaviest.

    Args:
        picture: The picture, or a word where there is none.
        lines: The texts.
        budget_bytes: What the picture may take of the page.
        strip: The data URI of a wide drawing that stands over the text in place of the picture.
    """
    if strip:
        shown = f'<img class="strip" alt="" src="{strip}">'
    elif isinstance(picture, str):
        shown = f'<span class="missing">{html.escape(plain(picture))}</span>'
    else:
        shown = f'<img alt="" src="{jpeg_uri(picture, budget_bytes)}">'
    text = "".join(f"<p>{html.escape(plain(line))}</p>" for line in lines)
    return f'<figure class="card{" whole" if strip else ""}">{shown}<div>{text}</div></figure>'


def cards(items: Sequence[str]) -> str:
    """Return a grid of what `card` gave."""
    return f'<div class="cards">{"".join(items)}</div>' if items else "<p>none</p>"


def plot(png: bytes, alt: str) -> str:
    """Return a drawing."""
    return f'<img class="plot" alt="{html.escape(plain(alt))}" src="{data_uri(png, "png")}">'


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
    """Return the text in one line of at most `MAX_TEXT_CHARACTERS`, without what cannot be printed."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 1] + "…"


def thumbnail(content: bytes | FetchError) -> Image.Image | str:
    """Return a picture squashed to a square, as the models see it, or the code of what is wrong with it."""
    if isinstance(content, FetchError):
        return content.code
    try:
        return Image.fromarray(decode(content, THUMBNAIL_PX).pixels.permute(1, 2, 0).numpy())
    except PictureError as error:
        return error.code


def thumbnails(uris: Sequence[str | None]) -> list[Image.Image | str]:
    """Read pictures as `thumbnail` gives them, in their order; few of the files are held at a time."""
    return [thumbnail(content) for contents in picture_groups(uris) for content in contents]


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
