"""Sources of a catalogue: each yields raw rows, one at a time, with their place."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from atlas_ray.errors import CatalogError, RowError
from atlas_ray.formats.delimited import Delimited
from atlas_ray.formats.json_lists import JsonList, KeyCheck
from atlas_ray.formats.text_files import AUTO, PACKED, Utf8Stream, check_packed, open_text, read_lines
from atlas_ray.formats.values import describe, is_missing, printable
from atlas_ray.io import storage

FORMATS = ("atlas-json", "json", "csv", "jsonl", "folder")
SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Formats by file name ending; the format of a `.json` is told from its content."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
MAX_HEAD_BYTES = 16 * 1024 * 1024


@dataclass
class RawRow:
    """A record as its source has it."""

    place: str
    """The row's place in the source: `line 7`, `image 3` or a file name."""
    fields: dict[str, Any] = field(default_factory=dict)
    error: RowError | None = None
    """The reason why the row could not be read."""
    blank: bool = False
    """Whether the row is blank, such as an empty line."""
    lines: int = 1
    """The number of lines of the row in a text file."""


class Source:
    """The records of a catalogue's source, blank ones and unreadable ones too.

    Attributes:
        kind: One of `FORMATS`.
        header: The columns of a CSV; None for other formats.
        header_lines: How many lines of a CSV come before its records.
        separator: What stands between the cells of a CSV; None for other formats.
    """

    def __init__(
        self,
        source: str,
        kind: str,
        columns: Sequence[str],
        *,
        encoding: str = AUTO,
        cut_off: bool = False,
        advice: str = "",
    ) -> None:
        """Open a source.

        Args:
            source: A file, or a folder.
            kind: One of `FORMATS`, or `auto`.
            columns: What the columns of a CSV may be called; its separator is the one that makes most of them known.
            encoding: Of text files.
            cut_off: See `Delimited`.
            advice: See `Delimited`.

        Raises:
            CatalogError: if the source as a whole is not of this format.
        """
        if kind not in (AUTO, *FORMATS):
            raise CatalogError(f"format {kind!r} is unknown; expected one of {', '.join(FORMATS)}")
        if storage.is_special(source):
            raise CatalogError(f"{source}: a pipe or a device, which cannot be read twice; write it to a file first")
        self.kind = kind if kind != AUTO else guess_format(source, encoding)
        self.header: list[str] | None = None
        self.header_lines = 0
        self.separator: str | None = None
        self._source = source
        self._encoding = encoding
        self._stream: Utf8Stream | None = None
        self._table: Delimited | None = None
        if self.kind == "csv":
            table = Delimited(
                self._open(source), columns, source=source, error=CatalogError, cut_off=cut_off, advice=advice
            )
            self.header, self.header_lines, self.separator = table.header, table.header_lines, table.separator
            self._table = table
            self._rows = self._csv(table)
        else:
            readers = {"atlas-json": self._atlas_json, "json": self._json, "jsonl": self._jsonl, "folder": self._folder}
            self._rows = readers[self.kind]()

    def __iter__(self) -> Iterator[RawRow]:
        return self._rows

    @property
    def lines(self) -> int | None:
        """The number of lines of a CSV that were read so far; None for other formats."""
        return self._table.lines if self._table else None

    @property
    def encoding(self) -> str | None:
        """The encoding that a text file was read with so far; None for folders."""
        return self._stream.encoding_name if self._stream else None

    @property
    def encoding_assumed(self) -> bool:
        """Whether the encoding is a guess."""
        return self._stream is not None and self._stream.assumed

    def warn_if_assumed(self) -> None:
        """Say that the encoding is a guess, for those who read a source without a report."""
        if self._stream:
            self._stream.warn_if_assumed(self._source)

    def _open(self, source: str) -> Utf8Stream:
        self._stream = open_text(source, CatalogError, self._encoding)
        return self._stream

    def _csv(self, table: Delimited) -> Iterator[RawRow]:
        for line, lines, cells, error in table:
            fields = dict(zip(table.header, cells, strict=True)) if cells else {}
            yield RawRow(f"line {line}", fields, error, blank=not (cells or error), lines=lines)

    def _jsonl(self) -> Iterator[RawRow]:
        """Read a file of JSON Lines, or all of them in a folder."""
        if not storage.is_folder(self._source):
            yield from self._json_lines(self._source, "")
            return
        files = storage.files(self._source, suffix=".jsonl")
        if not files:
            raise CatalogError(f"{self._source}: no file in it whose name ends in .jsonl")
        for file in files:
            yield from self._json_lines(file, f"{file.rpartition('/')[2]}, ")

    def _json_lines(self, source: str, name: str) -> Iterator[RawRow]:
        keys = KeyCheck()
        decode = json.JSONDecoder(object_pairs_hook=keys).decode
        for number, line, broken in read_lines(self._open(source)):
            place = f"{name}line {number}"
            if broken or not line.strip():
                yield RawRow(place, error=broken, blank=not broken)
                continue
            try:
                row = decode(line)
            except (ValueError, RecursionError) as error:
                keys.take()
                yield RawRow(place, error=RowError("bad_row", f"not JSON: {printable(str(error))}"))
                continue
            doubled = keys.take()
            yield RawRow(place, error=doubled) if doubled else _object(place, row)

    def _json(self) -> Iterator[RawRow]:
        """Read the objects of the first list in a JSON document."""
        for position, entry, broken in self._entries(None, "item"):
            yield RawRow(f"item {position}", error=broken) if broken else _object(f"item {position}", entry)

    def _atlas_json(self) -> Iterator[RawRow]:
        """Read `{"images": [{filename, title, description, price, sentences, split}]}`."""
        for position, image, broken in self._entries("images", "image"):
            row = RawRow(f"image {position}", error=broken) if broken else _object(f"image {position}", image)
            if row.error is None:
                _take_atlas(row)
            yield row

    def _entries(self, key: str | None, what: str) -> Iterator[tuple[int, Any, RowError | None]]:
        """Yield the entries of a list in a JSON document, with their positions."""
        position = 0
        document = JsonList(self._open(self._source))
        try:
            if document.find(key) is None:
                expected = f"{{{key!r}: [...]}}, an Atlas catalogue" if key else '[...] or {"products": [...]}'
                raise CatalogError(f"{self._source}: no list of {key or 'products'} in it; expected {expected}")
            for position, (entry, broken) in enumerate(document.entries(), 1):
                yield position, entry, broken
            document.finish()
        except ValueError as error:
            reason = " ".join(printable(str(error)).split())[:300]
            raise CatalogError(f"{self._source}, after {what} {position}: not JSON: {reason}") from None

    def _folder(self) -> Iterator[RawRow]:
        """Read pictures below a folder; the names of their folders are their category path."""
        empty = True
        ids = _FileIds()
        for name, size in storage.walk(self._source):
            if storage.ODD_SEGMENT.search(name):
                empty = False
                reason = "its name, or that of a folder, is empty, '.' or '..'; give the object another key"
                yield RawRow(printable(name), error=RowError("bad_key", reason))
                continue
            if storage.is_hidden(name):
                continue
            empty = False
            if printable(name) != name:
                yield RawRow(printable(name), error=RowError("bad_encoding", "its name is not UTF-8; rename it"))
            elif not name.lower().endswith(PICTURE_SUFFIXES):
                yield RawRow(name, error=RowError("not_a_picture", "its name has no picture's ending"))
            elif size == storage.DANGLING:
                yield RawRow(name, error=RowError("not_found", "a link that leads nowhere"))
            elif size == 0:
                yield RawRow(name, error=RowError("empty", "the file has no bytes"))
            else:
                product_id = ids.new(name)
                *folders, _ = name.split("/")
                uri = f"{self._source}/{name}"  # whole, so that nothing in the name is taken for more than a name
                fields = {"product_id": product_id, "image_uris": [uri], "category_path": folders or None}
                yield RawRow(name, fields)
        if empty:
            raise CatalogError(f"{self._source}: no file in it")


class _FileIds:
    """Ids of files that come sorted by name: the name without its ending; if another file has that, with it."""

    def __init__(self) -> None:
        self._beginnings: list[str] = []
        """The ids so far that the next file's name may begin with."""

    def new(self, name: str) -> str:
        """Return the id of the next file."""
        self._beginnings = [before for before in self._beginnings if name.startswith(f"{before}.")]
        stem = name.rpartition(".")[0]
        found = name if stem in self._beginnings else stem
        self._beginnings.append(found)
        return found


def guess_format(source: str, encoding: str = AUTO) -> str:
    """Tell a source's format from its name, or from its content; a folder or prefix is `folder`.

    Raises:
        CatalogError: if neither is one that can be read.
    """
    name = source.lower()
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    if storage.is_folder(source):
        return "folder"
    if not storage.exists(source):
        raise CatalogError(f"{source}: no such file or folder")
    for suffixes, _, advice in PACKED:
        if name.endswith(suffixes):
            raise CatalogError(f"{source}: {advice}")
    with storage.open_input(source) as stream:
        head = stream.read(MAX_HEAD_BYTES)
    check_packed(source, head, CatalogError)
    if name.endswith(".json"):
        return _guess_json(source, Utf8Stream([head], encoding).read())
    raise CatalogError(f"{source}: cannot tell its format; name one of {', '.join(FORMATS)} with --format")


def _guess_json(source: str, head: bytes) -> str:
    """Tell an Atlas catalogue, another document with a list, and JSON Lines apart."""
    lines = [line for line in head.splitlines() if line.strip()]
    if not lines:
        raise CatalogError(f"{source}: an empty file; expected a catalogue as JSON")
    first = _object_in(lines[0])
    if first is not None and len(lines) > 1:
        return "jsonl"
    key = _first_list(head)
    if key is not None:
        return "atlas-json" if key == "images" else "json"
    if any(not isinstance(value, list | dict) for value in (first or {}).values()) or any(map(_object_in, lines[1:])):
        return "jsonl"
    raise CatalogError(
        f'{source}: no list of products in it; expected [...], {{"products": [...]}}, or an object in each line'
    )


def _object_in(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return None


def _first_list(head: bytes) -> str | None:
    """Return the key of the first list of objects in a JSON document, "" if it is a list itself."""
    with contextlib.suppress(ValueError):
        return JsonList(Utf8Stream([head], "utf-8")).find()
    return None


def _object(place: str, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(place, value)
    return RawRow(place, error=RowError("bad_row", f"{describe(value)}; expected an object"))


def _take_atlas(row: RawRow) -> None:
    """Give a picture of an Atlas catalogue the fields of a product."""
    image = row.fields
    name = image.get("image_uri") if is_missing(image.get("filename")) else image.get("filename")
    if is_missing(image.get("product_id")) and isinstance(name, str):
        file = name.rpartition("/")[2]
        image["product_id"] = file.rpartition(".")[0] or file
    image["image_uris"] = [] if is_missing(name) else [name]
    if sentences := image.get("sentences"):
        try:
            tokens = sentences[0]["tokens"]
        except (KeyError, TypeError, IndexError):
            tokens = None
        if isinstance(tokens, list):
            image["category_path"] = tokens
        else:
            row.error = RowError("bad_row", "sentences[0] has no list of tokens")
