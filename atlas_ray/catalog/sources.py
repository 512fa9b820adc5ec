"""What a catalogue comes from: each source yields raw rows, one at a time, with where they stood."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ijson
import pyarrow as pa

from atlas_ray import storage
from atlas_ray.errors import CatalogError, RowError

FORMATS = ("atlas-json", "csv", "jsonl", "folder")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
MAX_ROW_BYTES = 16 * 1024 * 1024


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


def read_rows(source: str, kind: str) -> Iterator[RawRow]:
    """Yield the rows of a source.

    Raises:
        CatalogError: where the source as a whole is not of this format.
    """
    readers = {"atlas-json": _atlas_json, "csv": _csv, "jsonl": _jsonl, "folder": _folder}
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


def _lines(source: str) -> Iterator[tuple[int, str | RowError]]:
    """Yield (line number, text) of a text file, a broken or endless line as an error."""
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


def _csv(source: str) -> Iterator[RawRow]:
    csv.field_size_limit(min(MAX_ROW_BYTES, sys.maxsize))
    delimiter = "\t" if source.lower().endswith(".tsv") else ","
    broken: list[tuple[int, RowError]] = []

    def text() -> Iterator[str]:
        for number, line in _lines(source):
            if isinstance(line, RowError):
                broken.append((number, line))
            else:
                yield line

    rows = csv.reader(text(), delimiter=delimiter)
    header: list[str] | None = None
    while True:
        first_line = rows.line_num + len(broken) + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield RawRow(f"line {first_line}", error=RowError("bad_row", f"not CSV: {error}"))
            continue
        while broken:
            number, problem = broken.pop(0)
            yield RawRow(f"line {number}", error=problem)
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header):
                raise CatalogError(f"{source}, line 1: a column stands twice in {header}")
        elif len(cells) != len(header):
            yield RawRow(
                f"line {first_line}",
                error=RowError("bad_row", f"{len(cells)} cells where the header has {len(header)}"),
            )
        else:
            yield RawRow(f"line {first_line}", dict(zip(header, cells, strict=True)))
    if header is None:
        raise CatalogError(f"{source}: an empty file; expected a CSV with a header")


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
