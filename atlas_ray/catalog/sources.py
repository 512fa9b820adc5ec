"""What a catalogue comes from: each source yields raw rows, one at a time, with where they stood."""

import csv
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ijson
import pyarrow as pa

from atlas_ray import storage
from atlas_ray.errors import CatalogError, RowError

FORMATS = ("atlas-json", "csv", "jsonl", "folder")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
MAX_ROW_BYTES = 16 * 1024 * 1024
SEPARATORS = (",", ";", "\t")
"""Between the cells of a CSV; where the decimal point is a comma, spreadsheets write semicolons."""
MOST_HEADER_LINES = 100
SEPARATOR_LINE = re.compile(r'"?sep=([,;|\t])"?[,;|\s]*')
"""What may stand above a CSV's header, for a spreadsheet."""
BLANK = ',;\t\r\n "'
"""What a line without any cell is made of."""

Line = tuple[int, str | RowError]
"""A line's number, and its text or why it has none."""


@dataclass
class RawRow:
    """A row as its source has it."""

    place: str
    """Where it stood: `line 7`, `image 3` or a file name."""
    fields: dict[str, Any] = field(default_factory=dict)
    error: RowError | None = None
    """Why the row could not even be read."""


def guess_format(source: str) -> str:
    """Tell a source's format from its name; a folder or prefix is `folder`.

    Raises:
        CatalogError: where neither is one that can be read.
    """
    lowered = source.lower()
    if lowered.endswith((".csv", ".tsv")):
        return "csv"
    if lowered.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if lowered.endswith(".json"):
        return "atlas-json"
    if storage.is_folder(source):
        return "folder"
    raise CatalogError(
        f"{source}: cannot tell its format; name one of {', '.join(FORMATS)} with --format"
        if storage.exists(source)
        else f"{source}: no such file or folder"
    )


def read_rows(source: str, kind: str, columns: Sequence[str], *, cut_off: bool = False) -> Iterator[RawRow]:
    """Yield the rows of a source.

    Args:
        source: A file, or a folder.
        kind: One of `FORMATS`.
        columns: What the columns of a CSV may be called; its separator is the one that makes most of them known.
        cut_off: Take the last cells that a row of a CSV lacks as empty: Excel leaves them out where a block of
            rows has none. What stands beside the named columns is left out then, such as somebody's note; else
            such a row is refused, for a cell may have been torn apart.

    Raises:
        CatalogError: where the source as a whole is not of this format.
    """
    if kind == "csv":
        return _csv(source, columns, cut_off)
    readers = {"atlas-json": _atlas_json, "jsonl": _jsonl, "folder": _folder}
    if kind not in readers:
        raise CatalogError(f"format {kind!r} is unknown; expected one of {', '.join(FORMATS)}")
    return readers[kind](source)


def _atlas_json(source: str) -> Iterator[RawRow]:
    """Read `{"images": [{filename, title, description, price, sentences, split}]}`."""
    position = 0
    with storage.open_input(source) as stream:
        try:
            for position, image in enumerate(ijson.items(stream, "images.item", use_float=True), 1):
                place = f"image {position}"
                if not isinstance(image, dict):
                    yield RawRow(place, error=RowError("bad_row", f"a {type(image).__name__}, not an object"))
                    continue
                name = image.get("filename") or image.get("image_uri")
                stem = str(name).rpartition("/")[2].rpartition(".")[0] if name else None
                row = dict(image)
                row["product_id"] = image.get("product_id") or stem
                row["image_uris"] = [name] if name else []
                sentences = image.get("sentences")
                if sentences:
                    try:
                        row["category_path"] = list(sentences[0]["tokens"])
                    except (KeyError, TypeError, IndexError):
                        yield RawRow(place, error=RowError("bad_row", "sentences[0] has no tokens"))
                        continue
                yield RawRow(place, row)
        except ijson.JSONError as error:
            raise CatalogError(f"{source}, after image {position}: not JSON: {error}") from None
    if position == 0:
        raise CatalogError(f"{source}: no 'images' in it; expected an Atlas catalogue")


def _lines(source: str) -> Iterator[Line]:
    """Yield the lines of a text file, a broken one as an error."""
    with storage.open_input(source) as stream, pa.BufferedInputStream(stream, 1 << 20) as buffered:
        number, rest = 0, b""
        while True:
            block = buffered.read(1 << 20)
            parts = (rest + block).split(b"\n")
            rest = parts.pop() if block else b""
            for part in parts:
                number += 1
                if number == 1:
                    part = part.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, part.decode("utf-8") + "\n"
                except UnicodeDecodeError as error:
                    yield number, RowError("bad_encoding", f"byte {error.start} is not UTF-8")
            if not block:
                return
            if len(rest) > MAX_ROW_BYTES:
                raise CatalogError(f"{source}, line {number + 1}: longer than {MAX_ROW_BYTES} bytes")


def _csv(source: str, columns: Sequence[str], cut_off: bool) -> Iterator[RawRow]:
    csv.field_size_limit(min(MAX_ROW_BYTES, sys.maxsize))
    lines = _lines(source)
    head, separator = _header_lines(source, lines, columns)
    header: list[str] = []
    for number, cells in _cells(itertools.chain(head, lines), separator):
        place = f"line {number}"
        if isinstance(cells, RowError):
            yield RawRow(place, error=cells)
            continue
        count = len(cells)
        while len(cells) > len(header) and not cells[-1].strip():
            del cells[-1]  # a spreadsheet may add empty columns
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            named = [name for name in header if name]
            if len(set(named)) < len(named):
                raise CatalogError(f"{source}, {place}: a column stands twice in {header}")
            continue
        if cut_off:
            cells = cells[: len(header)] + [""] * (len(header) - len(cells))
        if len(cells) != len(header):
            yield RawRow(place, error=RowError("bad_row", f"{count} cells where the header has {len(header)}"))
        else:
            yield RawRow(place, dict(zip(header, cells, strict=True)))


def _header_lines(source: str, lines: Iterator[Line], columns: Sequence[str]) -> tuple[list[Line], str]:
    """Read up to the row that names the columns of a CSV, which may break lines, and tell the separator from it."""
    separators: tuple[str, ...] = SEPARATORS if not source.lower().endswith(".tsv") else SEPARATORS[::-1]
    for number, line in lines:
        if isinstance(line, RowError):
            raise CatalogError(f"{source}, line {number}: {line.message}; save it as a CSV in UTF-8")
        if told := SEPARATOR_LINE.fullmatch(line):
            separators = (told[1], *separators)
        elif line.strip(BLANK):
            head: list[Line] = [(number, line)]
            while line.count('"') % 2 and len(head) < MOST_HEADER_LINES:
                more = next(lines, None)
                if more is None or isinstance(more[1], RowError):
                    break
                head.append(more)
                line += more[1]
            names = {separator: _names(line, separator) for separator in separators}
            known = {separator: len(set(columns).intersection(found)) for separator, found in names.items()}
            separator = max(known, key=lambda one: known[one])  # of several the first one
            if not known[separator]:
                raise CatalogError(
                    f"{source}, line {number}: no known column in {max(names.values(), key=len)[:12]}; expected some "
                    f"of {', '.join(columns[:12])}, with commas, semicolons or tabs between them"
                )
            return head, separator
    raise CatalogError(f"{source}: an empty file; expected a CSV with a header")


def _names(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader(line.splitlines(keepends=True), delimiter=separator), [])]
    except csv.Error:
        return []


def _cells(lines: Iterable[Line], separator: str) -> Iterator[tuple[int, list[str] | RowError]]:
    """Yield the line that each row of a CSV begins in, and its cells."""
    broken: list[tuple[int, RowError]] = []
    begin = 0

    def text() -> Iterator[str]:
        nonlocal begin
        for number, line in lines:
            if isinstance(line, RowError):
                broken.append((number, line))
            else:
                begin = begin or number
                yield line

    rows = csv.reader(text(), delimiter=separator)
    while True:
        begin = 0
        cells: list[str] | RowError | None
        try:
            cells = next(rows, None)
        except csv.Error as error:
            cells = RowError("bad_row", f"not CSV: {error}")
        yield from broken
        broken.clear()
        if cells is None:
            return
        yield begin, cells


def _jsonl(source: str) -> Iterator[RawRow]:
    """Read a file of JSON Lines, or all of them in a folder."""
    if not storage.is_folder(source):
        yield from _json_lines(source, "")
        return
    files = storage.files(source, suffix=".jsonl")
    if not files:
        raise CatalogError(f"{source}: no file in it whose name ends in .jsonl")
    for file in files:
        yield from _json_lines(file, f"{file.rpartition('/')[2]}, ")


def _json_lines(source: str, name: str) -> Iterator[RawRow]:
    for number, line in _lines(source):
        place = f"{name}line {number}"
        if isinstance(line, RowError):
            yield RawRow(place, error=line)
        elif line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield RawRow(place, error=RowError("bad_row", f"not JSON: {error}"))
                continue
            if isinstance(row, dict):
                yield RawRow(place, row)
            else:
                yield RawRow(place, error=RowError("bad_row", f"a {type(row).__name__}, not an object"))


def _folder(source: str) -> Iterator[RawRow]:
    """Read pictures below a folder; the names of their folders are their category path."""
    empty = True
    for name, size in storage.walk(source):
        if name.rpartition("/")[2].startswith("."):
            continue
        empty = False
        if not name.lower().endswith(PICTURE_SUFFIXES):
            yield RawRow(name, error=RowError("not_a_picture", "its name has no picture's ending"))
        elif size == 0:
            yield RawRow(name, error=RowError("empty", "the file has no bytes"))
        else:
            *folders, _ = name.split("/")
            yield RawRow(
                name,
                {
                    "product_id": name.rpartition(".")[0],
                    "image_uris": [name],
                    "category_path": folders or None,
                },
            )
    if empty:
        raise CatalogError(f"{source}: no file in it")
