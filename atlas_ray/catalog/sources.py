"""Sources of a catalogue: each is cut into parts, and each part yields raw rows with their place."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from atlas_ray.catalog.parts import Format, Origin, Part, RawRow, RawTable
from atlas_ray.catalog.readers.csv_files import read_csv
from atlas_ray.catalog.readers.feeds import read_feed
from atlas_ray.catalog.readers.files import as_one, in_files, in_spans
from atlas_ray.catalog.readers.json_files import read_amazon, read_atlas_json, read_json, read_json_lines
from atlas_ray.catalog.readers.lake_tables import (
    delta_parts,
    iceberg_parts,
    is_name,
    lance_parts,
    read_delta,
    read_iceberg,
    read_lance,
)
from atlas_ray.catalog.readers.parquet_files import in_row_groups, read_parquet
from atlas_ray.catalog.readers.picture_folders import read_pictures
from atlas_ray.catalog.readers.workbook_sheets import read_workbook
from atlas_ray.errors import CatalogError
from atlas_ray.formats.json_lists import JsonList
from atlas_ray.formats.table_files import SUFFIXES as PARQUET_SUFFIXES
from atlas_ray.formats.text_files import (
    AUTO,
    COMPRESSED_SUFFIXES,
    PACKED,
    Utf8Stream,
    check_packed,
    unpacked_blocks,
)
from atlas_ray.formats.workbooks import SUFFIXES as WORKBOOK_SUFFIXES
from atlas_ray.io import storage

FEED_SUFFIXES = (".xml", ".rss", ".atom")
SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    **dict.fromkeys(PARQUET_SUFFIXES, "parquet"),
    **dict.fromkeys(WORKBOOK_SUFFIXES, "excel"),
    **dict.fromkeys(FEED_SUFFIXES, "feed"),
}
"""Formats by file name ending; the format of a `.json` is told from its content."""
TABLE_FOLDERS = {"_delta_log": "delta", "_versions": "lance", "metadata": "iceberg"}
"""Formats of tables by the folder that their log is in."""
MAX_HEAD_BYTES = 16 * 1024 * 1024


class Source(Origin):
    """The records of a catalogue's source, or of a part of it: blank ones and unreadable ones, too.

    Attributes:
        kind: One of `FORMATS`.
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
        sheet: str = "",
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
            sheet: Of a workbook; "" for the first one.
            part: The part that is read; None: all.

        Raises:
            CatalogError: if the source as a whole is not of this format.
        """
        if kind not in (AUTO, *FORMATS):
            raise CatalogError(f"format {kind!r} is unknown; expected one of {', '.join(FORMATS)}")
        if storage.is_special(source):
            raise CatalogError(f"{source}: a pipe or a device, which cannot be read twice; write it to a file first")
        self.kind = kind if kind != AUTO else guess_format(source, encoding)
        self.format = FORMATS[self.kind]
        super().__init__(
            source, columns, word=self.format.word, encoding=encoding, cut_off=cut_off, advice=advice, sheet=sheet,
            part=part,
        )  # fmt: skip
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


FORMATS: dict[str, Format] = {
    "csv": Format(
        "CSV with commas, semicolons, tabs or bars",
        in_spans(".csv", ".tsv", otherwise=(".txt",)),
        tables=read_csv,
        word="line",
    ),
    "jsonl": Format(
        "JSON Lines", in_spans(".jsonl", ".ndjson", otherwise=(".json",)), rows=read_json_lines, word="line"
    ),
    "json": Format("JSON with a list of products", in_files(".json"), rows=read_json, word="item"),
    "parquet": Format("Parquet", in_row_groups, tables=read_parquet, word="row"),
    "excel": Format(
        "a sheet of a workbook (.xlsx, .xls, .ods)", in_files(*WORKBOOK_SUFFIXES), rows=read_workbook, word="row"
    ),
    "feed": Format("a product feed in RSS or Atom", in_files(*FEED_SUFFIXES), rows=read_feed, word="item"),
    "iceberg": Format("an Iceberg table", iceberg_parts, tables=read_iceberg, word="row"),
    "delta": Format("a Delta table", delta_parts, tables=read_delta, word="row"),
    "lance": Format("a Lance table", lance_parts, tables=read_lance, word="row"),
    "amazon": Format(
        "JSON Lines in the layout of Amazon's metadata", in_spans(".json", ".jsonl"), rows=read_amazon, word="line"
    ),
    "atlas-json": Format("Atlas JSON", in_files(".json"), rows=read_atlas_json, word="image"),
    "folder": Format("category folders of pictures", as_one, rows=read_pictures),
}
"""The formats of sources by name."""


def locate(source: str, kind: str) -> str:
    """Return the URI of a source; the name of an Iceberg table in a catalogue stays as it is."""
    return source if kind == "iceberg" and is_name(source) and not storage.exists(source) else storage.absolute(source)


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
    if Utf8Stream([head], encoding).read().lstrip().startswith(b"<?xml"):
        return "feed"
    check_packed(source, head, CatalogError)
    if name.endswith(".json"):
        return _guess_json(source, Utf8Stream([head], encoding).read())
    first, _, more = head.lstrip().partition(b"\n")
    if name.endswith(".txt") and more and b"\t" in first:
        return "csv"
    raise CatalogError(f"{source}: cannot tell its format; name one of {', '.join(FORMATS)} with --format")


def _guess_folder(source: str) -> str:
    """Tell a table by the folder of its log, and a folder of tables by the first file in it that is no hidden one."""
    for log, kind in TABLE_FOLDERS.items():
        if storage.is_folder(storage.join(source, log)) and (kind != "iceberg" or _has_metadata(source)):
            return kind
    for name, _ in storage.walk(source):
        if storage.is_hidden(name) or name.rpartition("/")[2].startswith("_"):
            continue  # such as `_SUCCESS` beside Parquet files
        plain = name.lower()
        for ending in COMPRESSED_SUFFIXES:
            plain = plain.removesuffix(ending)
        if plain.endswith(".json"):
            return guess_format(storage.join(source, name))
        return next((kind for suffix, kind in SUFFIXES.items() if plain.endswith(suffix)), "folder")
    return "folder"


def _has_metadata(source: str) -> bool:
    return any(name.endswith(".metadata.json") for name, _ in storage.walk(storage.join(source, "metadata")))


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
