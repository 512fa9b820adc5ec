"""Sources of a catalogue: each is cut into parts, and each part yields raw rows with their place."""

import ast
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from atlas_ray.errors import CatalogError, RowError
from atlas_ray.formats.delimited import Delimited, Layout
from atlas_ray.formats.json_lists import JsonList, KeyCheck
from atlas_ray.formats.spans import Span, SpanText, spans_of
from atlas_ray.formats.table_files import SUFFIXES as PARQUET_SUFFIXES
from atlas_ray.formats.table_files import TableFile, parquet_files, read_footers
from atlas_ray.formats.text_files import (
    AUTO,
    COMPRESSED_SUFFIXES,
    PACKED,
    Utf8Stream,
    check_packed,
    open_text,
    read_lines,
    unpacked_blocks,
)
from atlas_ray.formats.values import describe, is_missing, printable
from atlas_ray.io import storage

SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"} | dict.fromkeys(
    PARQUET_SUFFIXES, "parquet"
)
"""Formats by file name ending; the format of a `.json` is told from its content."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
MAX_HEAD_BYTES = 16 * 1024 * 1024
TABLE_ROWS = 10_000
"""The number of rows that are read at a time."""


class Place(NamedTuple):
    """Where a row stands in its source."""

    part: int
    """The number of the part."""
    number: int
    """The row's number within the part, from 1; that of its first line in a text file."""
    word: str = ""
    """What is numbered: `line`, `item`, `row`; "" where the name says it all."""
    name: str = ""
    """The name of the file within the source, if there are several."""

    def __str__(self) -> str:
        """Return it for a message: `line 7`, `a.csv, line 7`, or the name of a picture."""
        return ", ".join(filter(None, (self.name, self.word and f"{self.word} {self.number}")))

    def after(self, lines: int) -> "Place":
        """Return the place, counted from further up."""
        return self._replace(number=self.number + lines)


@dataclass
class RawRow:
    """A record as its source has it."""

    place: Any
    """A `Place`; in other lists, a text."""
    fields: dict[str, Any] = field(default_factory=dict)
    error: RowError | None = None
    """The reason why the row could not be read."""
    blank: bool = False
    """Whether the row is blank, such as an empty line."""
    lines: int = 1
    """The number of lines of the row in a text file."""


class RawTable(NamedTuple):
    """Some rows of a source whose rows all have the same columns, and the other records between them."""

    table: pa.Table
    numbers: list[int]
    """Where each row stands, as `Place.number`."""
    lines: list[int]
    """The number of lines of each row in a text file."""
    others: list[RawRow]
    """Blank records, and those that could not be read."""
    name: str
    """As `Place.name`."""


@dataclass(frozen=True)
class Part:
    """A part of a source, which one task reads."""

    number: int
    uri: str
    """The file."""
    rows: int
    """About how many rows it has."""
    bytes: int
    """About how many bytes it has."""
    name: str = ""
    """The name of the file within the source, if there are several."""
    span: Span | None = None
    """The lines of a text file that it consists of."""
    groups: TableFile | None = None
    """The row groups of a Parquet file that it consists of."""
    before: int = 0
    """The number of rows of the Parquet file before them."""
    skip: int | None = None
    """The number of lines at its beginning that belong to a record of the part before; None to guess it."""
    assumed: str = ""
    """The encoding that another part of the file was read with, if that is a guess."""

    @property
    def continues(self) -> bool:
        """Whether it begins within its file."""
        return self.span is not None and self.span.start > 0


class Source:
    """The records of a catalogue's source, or of a part of it: blank ones and unreadable ones, too.

    Attributes:
        kind: One of `FORMATS`.
        header: The columns of a table; None for formats whose rows may differ.
        header_lines: How many lines of a CSV come before its records.
        separator: What stands between the cells of a CSV; None for other formats.
        row_lines: How many lines of a CSV its records had so far.
        skipped: How many lines at the beginning were left out, which belong to a record of the part before.
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
        part: Part | None = None,
    ) -> None:
        """Open a source.

        Args:
            source: A file, or a folder.
            kind: One of `FORMATS`, or `auto`.
            columns: What the columns of a CSV may be called; its separator is the one that makes most of them known.
            encoding: Of text files.
            cut_off: See `Delimited`.
            advice: See `Delimited`.
            part: The part that is read; None: all.

        Raises:
            CatalogError: if the source as a whole is not of this format.
        """
        if kind not in (AUTO, *FORMATS):
            raise CatalogError(f"format {kind!r} is unknown; expected one of {', '.join(FORMATS)}")
        if storage.is_special(source):
            raise CatalogError(f"{source}: a pipe or a device, which cannot be read twice; write it to a file first")
        self.kind = kind if kind != AUTO else guess_format(source, encoding)
        self.uri = source
        self.format = FORMATS[self.kind]
        self.columns, self.encoding_asked, self.cut_off, self.advice = columns, encoding, cut_off, advice
        self.part = part
        self.header: list[str] | None = None
        self.header_lines = 0
        self.separator: str | None = None
        self.skipped = 0
        self.row_lines = 0
        self.stream: Utf8Stream | None = None
        self.own_lines: int | None = None
        self.table: Delimited | None = None
        self._parts: list[Part] = [part] if part else self.format.parts(self, whole=True)
        self._tables = self.format.tables(self, self._parts) if self.format.tables else None
        self._first = next(self._tables, None) if self._tables else None  # reads the header

    def __iter__(self) -> Iterator[RawRow]:
        if self.format.rows is not None:
            return self.format.rows(self, self._parts)
        return (row for table in self.tables() for row in self._rows_of(table))

    @property
    def is_table(self) -> bool:
        """Whether all rows have the same columns."""
        return self._tables is not None

    def tables(self) -> Iterator[RawTable]:
        """Yield the rows of a source that is a table, some at a time."""
        if self._tables is not None and self._first is not None:
            yield self._first
            yield from self._tables

    def parts(self) -> list[Part]:
        """Cut the source into parts that can be read apart, in order."""
        return self.format.parts(self, whole=False)

    def place(self, number: int, name: str = "") -> Place:
        """Return the place of a row."""
        return Place(self.part.number if self.part else 0, number, self.format.word, name)

    def _rows_of(self, table: RawTable) -> Iterator[RawRow]:
        rows = [
            RawRow(self.place(number, table.name), fields, lines=lines)
            for number, lines, fields in zip(table.numbers, table.lines, table.table.to_pylist(), strict=True)
        ]
        yield from sorted([*rows, *table.others], key=lambda row: row.place.number)

    @property
    def lines(self) -> int | None:
        """The number of lines of a CSV that were read so far; None for other formats."""
        return self.table.lines if self.table else None

    @property
    def encoding(self) -> str | None:
        """The encoding that a text file was read with so far; None for others."""
        return self.stream.encoding_name if self.stream else None

    @property
    def encoding_assumed(self) -> bool:
        """Whether the encoding is a guess."""
        return self.stream is not None and self.stream.assumed

    def warn_if_assumed(self) -> None:
        """Say that the encoding is a guess, for those who read a source without a report."""
        if self.stream:
            self.stream.warn_if_assumed(self.uri)

    def open_part(self, part: Part) -> Utf8Stream:
        """Open the text of a part."""
        text = SpanText(part.span or Span(part.uri), CatalogError, self.encoding_asked, assumed=part.assumed)
        self.stream, self.own_lines = text.stream, text.own_lines
        return text.stream


@dataclass(frozen=True)
class Format:
    """A format of sources."""

    parts: Callable[..., list[Part]]
    """Cuts a source into parts; with `whole` into one for each file."""
    rows: Callable[[Source, Sequence[Part]], Iterator[RawRow]] | None = None
    """Reads the rows of some parts."""
    tables: Callable[[Source, Sequence[Part]], Iterator[RawTable]] | None = None
    """Reads the rows of some parts if all of them have the same columns."""
    word: str = ""
    """What `Place.number` numbers."""


def _files(source: Source, suffixes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the files of a source, each with its name within the source, if that is a folder."""
    if not storage.is_folder(source.uri):
        return [(source.uri, "")]
    packed = tuple(suffix + ending for suffix in suffixes for ending in ("", *COMPRESSED_SUFFIXES))
    names = sorted(
        name for name, _ in storage.walk(source.uri) if name.lower().endswith(packed) and not storage.is_hidden(name)
    )
    if not names:
        raise CatalogError(f"{source.uri}: no file in it whose name ends in {suffixes[0]}")
    return [(storage.join(source.uri, name), name) for name in names]


def _in_spans(*suffixes: str) -> Callable[..., list[Part]]:
    """Return what cuts text files into spans of lines."""

    def parts(source: Source, *, whole: bool) -> list[Part]:
        spans = [
            (span, name)
            for uri, name in _files(source, suffixes)
            for span in ([Span(uri)] if whole else spans_of(uri, CatalogError))
        ]
        return [
            Part(number, span.uri, rows=span.size // ROW_BYTES + 1, bytes=span.size, name=name, span=span)
            for number, (span, name) in enumerate(spans)
        ]

    return parts


ROW_BYTES = 300
"""About how many bytes a row of a text file has."""


def _as_one(source: Source, *, whole: bool) -> list[Part]:  # noqa: ARG001 - as the others
    size = 0 if storage.is_folder(source.uri) else storage.size(source.uri)
    return [Part(0, source.uri, rows=size // ROW_BYTES + 1, bytes=size)]


def _in_row_groups(source: Source, *, whole: bool) -> list[Part]:
    if not parquet_files(source.uri):
        raise CatalogError(f"{source.uri}: no Parquet file in it")
    parts: list[Part] = []
    for file in read_footers(source.uri, set()):
        name = file.uri[len(source.uri.rstrip("/")) + 1 :] if file.uri != source.uri else ""
        before = 0
        for at in range(1 if whole else len(file.groups)):
            groups = file if whole else file.part(at, at + 1)
            size = sum(group.bytes for group in groups.groups)
            part = Part(len(parts), file.uri, groups.rows, size, name, groups=groups, before=before)
            parts.append(part)
            before += groups.rows
    return parts


def _csv(source: Source, parts: Sequence[Part]) -> Iterator[RawTable]:
    """Read CSV files, each with a header of its own."""
    for part in parts:
        layout = None
        if part.continues:
            layout = _delimited(source, open_text(part.uri, CatalogError, source.encoding_asked), part.uri).layout
        table = source.table = _delimited(source, source.open_part(part), part.uri, layout)
        source.header, source.header_lines, source.separator = table.header, table.header_lines, table.separator
        if part.continues:
            source.skipped = table.guess_beginning() if part.skip is None else table.skip(part.skip)
        yield from _csv_tables(source, table, part)


def _delimited(source: Source, stream: Utf8Stream, uri: str, layout: Layout | None = None) -> Delimited:
    return Delimited(
        stream,
        source.columns,
        source=uri,
        error=CatalogError,
        cut_off=source.cut_off,
        advice=source.advice,
        layout=layout,
    )


def _csv_tables(source: Source, table: Delimited, part: Part) -> Iterator[RawTable]:
    names = [name for name in table.header if name]
    at = [number for number, name in enumerate(table.header) if name]
    records = iter(table)
    more = True
    while more:
        numbers: list[int] = []
        cells: list[list[str]] = []
        others: list[RawRow] = []
        lines: list[int] = []
        while len(cells) + len(others) < TABLE_ROWS:
            if source.own_lines is not None and table.lines >= source.own_lines:
                more = False
                break
            record = next(records, None)
            if record is None:
                more = False
                break
            source.row_lines += record.lines
            if record.cells:
                numbers.append(record.line)
                cells.append(record.cells)
                lines.append(record.lines)
            else:
                place = source.place(record.line, part.name)
                others.append(RawRow(place, error=record.error, blank=record.error is None, lines=record.lines))
        columns = [pa.array([row[column] for row in cells], pa.string()) for column in at]
        yield RawTable(pa.Table.from_arrays(columns, names=names), numbers, lines, others, part.name)


def _parquet(source: Source, parts: Sequence[Part]) -> Iterator[RawTable]:
    """Read Parquet files; a column that a file lacks is missing in its rows."""
    for part in parts:
        file = part.groups
        assert file is not None
        names = list(dict.fromkeys((*file.schema.names, *file.folders)))
        source.header = names
        fields = [pa.field(name, file.type_of(name)) for name in names]
        first = part.before + 1
        for raw, _ in file.batches(fields, TABLE_ROWS):
            table = pa.Table.from_arrays(raw, names=names)
            yield RawTable(table, list(range(first, first + len(table))), [1] * len(table), [], part.name)
            first += len(table)


def _jsonl(source: Source, parts: Sequence[Part]) -> Iterator[RawRow]:
    for part in parts:
        yield from _json_lines(source, part, _as_json)


def _amazon(source: Source, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read metadata as Amazon's reviews come with: an object a line, in JSON or as Python prints it."""
    for part in parts:
        for row in _json_lines(source, part, _as_json_or_python):
            row.fields = {AMAZON.get(name, name): value for name, value in row.fields.items()}
            yield row


AMAZON = {"asin": "product_id", "imUrl": "image_uris", "imageURLHighRes": "image_uris", "categories": "category_path",
          "category": "category_path"}  # fmt: skip
"""Our fields by the keys of Amazon's metadata."""

Decode = Callable[[str], Any]


def _as_json(keys: KeyCheck) -> Decode:
    return json.JSONDecoder(object_pairs_hook=keys).decode


def _as_json_or_python(keys: KeyCheck) -> Decode:
    decode = _as_json(keys)

    def read(line: str) -> Any:
        with contextlib.suppress(ValueError):
            return decode(line)
        keys.take()
        try:
            return ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError) as error:
            raise ValueError(str(error)) from None

    return read


def _json_lines(source: Source, part: Part, decoder: Callable[[KeyCheck], Decode]) -> Iterator[RawRow]:
    keys = KeyCheck()
    decode = decoder(keys)
    for number, line, broken in read_lines(source.open_part(part)):
        if source.own_lines is not None and number > source.own_lines:
            return
        place = source.place(number, part.name)
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


def _json(source: Source, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read the objects of the first list in a JSON document."""
    for position, entry, broken in _entries(source, parts[0], None, "item"):
        place = source.place(position)
        yield RawRow(place, error=broken) if broken else _object(place, entry)


def _atlas_json(source: Source, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read `{"images": [{filename, title, description, price, sentences, split, image_url}]}`."""
    for position, image, broken in _entries(source, parts[0], "images", "image"):
        place = source.place(position)
        row = RawRow(place, error=broken) if broken else _object(place, image)
        if row.error is None:
            _take_atlas(row)
        yield row


def _entries(source: Source, part: Part, key: str | None, what: str) -> Iterator[tuple[int, Any, RowError | None]]:
    """Yield the entries of a list in a JSON document, with their positions."""
    position = 0
    document = JsonList(source.open_part(part))
    try:
        if document.find(key) is None:
            expected = f"{{{key!r}: [...]}}, an Atlas catalogue" if key else '[...] or {"products": [...]}'
            raise CatalogError(f"{part.uri}: no list of {key or 'products'} in it; expected {expected}")
        for position, (entry, broken) in enumerate(document.entries(), 1):
            yield position, entry, broken
        document.finish()
    except ValueError as error:
        reason = " ".join(printable(str(error)).split())[:300]
        raise CatalogError(f"{part.uri}, after {what} {position}: not JSON: {reason}") from None


def _folder(source: Source, parts: Sequence[Part]) -> Iterator[RawRow]:  # noqa: ARG001 - as the others
    """Read pictures below a folder; the names of their folders are their category path."""
    empty = True
    ids = _FileIds()
    for number, (name, size) in enumerate(storage.walk(source.uri), 1):
        place = source.place(number, printable(name))
        if storage.ODD_SEGMENT.search(name):
            empty = False
            reason = "its name, or that of a folder, is empty, '.' or '..'; give the object another key"
            yield RawRow(place, error=RowError("bad_key", reason))
            continue
        if storage.is_hidden(name):
            continue
        empty = False
        if printable(name) != name:
            yield RawRow(place, error=RowError("bad_encoding", "its name is not UTF-8; rename it"))
        elif not name.lower().endswith(PICTURE_SUFFIXES):
            yield RawRow(place, error=RowError("not_a_picture", "its name has no picture's ending"))
        elif size == storage.DANGLING:
            yield RawRow(place, error=RowError("not_found", "a link that leads nowhere"))
        elif size == 0:
            yield RawRow(place, error=RowError("empty", "the file has no bytes"))
        else:
            product_id = ids.new(name)
            *folders, _ = name.split("/")
            uri = f"{source.uri}/{name}"  # whole, so that nothing in the name is taken for more than a name
            fields = {"product_id": product_id, "image_uris": [uri], "category_path": folders or None}
            yield RawRow(place, fields)
    if empty:
        raise CatalogError(f"{source.uri}: no file in it")


FORMATS: dict[str, Format] = {
    "atlas-json": Format(_as_one, rows=_atlas_json, word="image"),
    "json": Format(_as_one, rows=_json, word="item"),
    "csv": Format(_in_spans(".csv", ".tsv"), tables=_csv, word="line"),
    "jsonl": Format(_in_spans(".jsonl", ".ndjson"), rows=_jsonl, word="line"),
    "amazon": Format(_in_spans(".json", ".jsonl"), rows=_amazon, word="line"),
    "parquet": Format(_in_row_groups, tables=_parquet, word="row"),
    "folder": Format(_as_one, rows=_folder),
}
"""The formats of sources by name."""


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
    """Tell a source's format from its name, or from its content; a folder of pictures is `folder`.

    Raises:
        CatalogError: if neither is one that can be read.
    """
    if storage.is_folder(source):
        return _guess_folder(source)
    name = source.lower()
    for ending in COMPRESSED_SUFFIXES:
        name = name.removesuffix(ending)
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    if not storage.exists(source):
        raise CatalogError(f"{source}: no such file or folder")
    for suffixes, _, advice in PACKED:
        if name.endswith(suffixes):
            raise CatalogError(f"{source}: {advice}")
    head, blocks = b"", unpacked_blocks(source, CatalogError)
    while len(head) < MAX_HEAD_BYTES and (block := next(blocks, b"")):
        head += block
    check_packed(source, head, CatalogError)
    if name.endswith(".json"):
        return _guess_json(source, Utf8Stream([head], encoding).read())
    raise CatalogError(f"{source}: cannot tell its format; name one of {', '.join(FORMATS)} with --format")


def _guess_folder(source: str) -> str:
    """Tell a folder of tables by the first file in it that is no hidden one."""
    names = (name.lower() for name, _ in storage.walk(source) if not storage.is_hidden(name))
    for name in names:
        if name.rpartition("/")[2].startswith("_"):
            continue  # such as `_SUCCESS` beside Parquet files
        for ending in COMPRESSED_SUFFIXES:
            name = name.removesuffix(ending)
        return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), "folder")
    return "folder"


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


def _object(place: Place, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(place, value)
    return RawRow(place, error=RowError("bad_row", f"{describe(value)}; expected an object"))


def _take_atlas(row: RawRow) -> None:
    """Give a picture of an Atlas catalogue the fields of a product."""
    image = row.fields
    name = image.get("image_uri") if is_missing(image.get("filename")) else image.get("filename")
    if is_missing(name):
        name = image.get("image_url")
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
