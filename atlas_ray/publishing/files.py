"""Files for other systems, written as a stream: CSV, JSON Lines and Parquet."""

import codecs
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from atlas_ray.arrays import list_offsets
from atlas_ray.errors import ConfigError
from atlas_ray.formats.spreadsheet import FORMULA_STARTS, GUARD
from atlas_ray.io import storage
from atlas_ray.runs.leaves import path_lengths
from atlas_ray.taxonomy.tree import SEPARATOR

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Compressions by the ending of a file's name."""
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""Formats by the ending of a file's name, before that of its compression."""
DECIMALS = 6
"""Decimals of a probability in a text file."""
BETWEEN = " | "
"""The separator of several category paths, or of labels, in a cell."""
FORMULA = f"^[{''.join(FORMULA_STARTS).replace('-', '')}{GUARD}-]"
"""A pattern of the beginning of a text that some spreadsheet would compute, or that looks guarded."""
LINE_BREAKS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"}
"""Characters of a JSON text at which some readers of lines would cut, as escapes."""


class RowWriter(Protocol):
    """A writer of rows to a stream."""

    def write(self, rows: pa.Table) -> None:
        """Write some rows."""

    def close(self) -> None:
        """Write what stands after the last row."""


class CsvRows:
    """CSV that a spreadsheet opens: a byte order mark, no text that it would compute, paths as `A > B`."""

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema) -> None:
        """Write the header."""
        stream.write(codecs.BOM_UTF8 + f"{','.join(schema.names)}\n".encode())
        cells = _cells(schema.empty_table()).schema
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
        self._writer = pyarrow.csv.CSVWriter(stream, cells, write_options=options)

    def write(self, rows: pa.Table) -> None:
        """Write some rows."""
        self._writer.write_table(_cells(rows))

    def close(self) -> None:
        """End the file."""
        self._writer.close()


class JsonRows:
    """JSON Lines: an object a row, with lists and objects where the table has them."""

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema) -> None:
        """Take the stream."""
        self._stream = stream
        self._maps = [field.name for field in schema if pa.types.is_map(field.type)]

    def write(self, rows: pa.Table) -> None:
        """Write some rows."""
        lines = []
        for row in _rounded(rows).to_pylist():
            for name in self._maps:
                row[name] = None if row[name] is None else dict(row[name])
            lines.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")).translate(LINE_BREAKS))
        if lines:
            self._stream.write(("\n".join(lines) + "\n").encode())

    def close(self) -> None:
        """Write nothing more."""


class ParquetRows:
    """Parquet, a row group for each call."""

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema) -> None:
        """Begin the file."""
        self._writer = pq.ParquetWriter(stream, schema)

    def write(self, rows: pa.Table) -> None:
        """Write some rows."""
        self._writer.write_table(rows)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


FORMATS: dict[str, Callable[[pa.NativeFile, pa.Schema], RowWriter]] = {
    "csv": CsvRows,
    "jsonl": JsonRows,
    "parquet": ParquetRows,
}
"""Formats of a file, by name."""


def format_of(uri: str, named: str | None = None) -> str:
    """Return the format of a file: the named one, or the one that its name tells.

    Raises:
        ConfigError: if neither tells one, or a Parquet file is to be compressed as a whole.
    """
    head, compressed = _without_compression(uri)
    found = named or next((kind for suffix, kind in SUFFIXES.items() if head.lower().endswith(suffix)), None)
    if found is None:
        raise ConfigError(
            f"{uri}: its name tells no format; end it with {', '.join(SUFFIXES)} (and .gz or .zst), or name the "
            f"format with --format: {', '.join(FORMATS)}"
        )
    if found == "parquet" and compressed:
        raise ConfigError(f"{uri}: Parquet is compressed within; end its name with .parquet alone")
    return found


def beside(uri: str, name: str) -> str:
    """Return the name of a file that goes with another one, such as `answers.quarantine.csv.gz`."""
    head, compressed = _without_compression(uri)
    folder, slash, file = head.rpartition("/")
    stem, dot, ending = file.rpartition(".")
    return folder + slash + (f"{stem}.{name}.{ending}" if dot else f"{file}.{name}") + compressed


def _without_compression(uri: str) -> tuple[str, str]:
    """Return a name without the ending of its compression, and that ending, "" if it has none."""
    ending = next((ending for ending in COMPRESSIONS if uri.lower().endswith(ending)), "")
    cut = len(uri) - len(ending)
    return uri[:cut], uri[cut:]


@contextlib.contextmanager
def writing_rows(uri: str, kind: str, schema: pa.Schema) -> Iterator[RowWriter]:
    """Open a file for rows; it appears when the block ends, or not at all if the block raises.

    Args:
        uri: Local or in S3; its ending says how it is compressed.
        kind: One of `FORMATS`.
        schema: Of the rows.

    Raises:
        StorageError: if it cannot be written.
    """
    with storage.writing(uri) as stream:
        _, ending = _without_compression(uri)
        if not ending:
            yield from _written(stream, kind, schema)
            return
        with pa.CompressedOutputStream(stream, COMPRESSIONS[ending.lower()]) as packed:
            yield from _written(packed, kind, schema)


def _written(stream: pa.NativeFile, kind: str, schema: pa.Schema) -> Iterator[RowWriter]:
    with contextlib.closing(FORMATS[kind](stream, schema)) as writer:
        yield writer


def _cells(rows: pa.Table) -> pa.Table:
    """Return rows as cells of a spreadsheet: texts, numbers, true and false."""
    rows = _rounded(rows)
    return pa.table({field.name: _cell_column(rows[field.name], field.type) for field in rows.schema})


def _cell_column(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    if pa.types.is_map(kind):
        texts = [None if one is None else json.dumps(dict(one), ensure_ascii=False) for one in column.to_pylist()]
        return _guarded(pa.array(texts, pa.string()))
    if pa.types.is_list(kind) and pa.types.is_list(kind.value_type):
        texts = [
            None if one is None else BETWEEN.join(SEPARATOR.join(path) for path in one) for one in column.to_pylist()
        ]
        return _guarded(pa.array(texts, pa.string()))
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return _guarded(pc.binary_join(_names(column), BETWEEN))
    if pa.types.is_list(kind):
        return _guarded(pc.binary_join(column, SEPARATOR))
    return _guarded(column) if pa.types.is_string(kind) else column


def _names(labels: pa.ChunkedArray) -> pa.Array:
    """Return lists of labels without their probabilities."""
    lists = labels.combine_chunks()
    names = lists.flatten().field("label")
    return pa.ListArray.from_arrays(list_offsets(path_lengths(lists)), names, mask=lists.is_null())


def _guarded(texts: Any) -> Any:
    """Return texts that no spreadsheet takes for a formula, as `atlas_ray.formats.spreadsheet.guarded` does."""
    return pc.if_else(pc.match_substring_regex(texts, FORMULA), pc.binary_join_element_wise(GUARD, texts, ""), texts)


def _rounded(rows: pa.Table) -> pa.Table:
    """Return rows whose numbers have a few decimals."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_floating(field.type):
            rows = rows.set_column(place, field.name, pc.round(rows[field.name].cast(pa.float64()), DECIMALS))
        elif pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            lists = rows[field.name].combine_chunks()
            values = lists.flatten()
            probability = pc.round(values.field("probability").cast(pa.float64()), DECIMALS)
            rounded = pa.StructArray.from_arrays([values.field("label"), probability], names=["label", "probability"])
            offsets = list_offsets(path_lengths(lists))
            column = pa.ListArray.from_arrays(offsets, rounded, mask=lists.is_null())
            rows = rows.set_column(place, field.name, column)
    return rows
