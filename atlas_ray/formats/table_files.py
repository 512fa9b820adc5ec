"""Parquet files of a table as any program writes them: their footers, and their columns in this project's types."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from atlas_ray.errors import STORE_ERROR, CatalogError, OutageError, StorageError
from atlas_ray.formats.columns import (
    EXPECTED,
    cast,
    cast_path,
    cast_price,
    cast_split,
    fits,
    kind_of,
    plain_type,
)
from atlas_ray.formats.values import MAX_PRICE
from atlas_ray.io import storage
from atlas_ray.io.ahead import ahead

SUFFIXES = (".parquet", ".pq", ".parq")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Pauses before each retry of a read that a store refused or broke off, since Arrow itself does not retry."""


@dataclass(frozen=True)
class RowGroup:
    """A part of a file, as its footer tells of it."""

    rows: int
    bytes: int
    sure: frozenset[str]
    """Keys, and paths, of which it has neither a null nor an empty text; splits and prices that can all be read."""


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of a table, or some of its row groups."""

    uri: str
    schema: pa.Schema
    folders: Mapping[str, str | None]
    """Columns and values from the names of the file's folders, such as `split=train/`."""
    groups: tuple[RowGroup, ...]
    first: int = 0
    """The number of the first row in the file."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(group.rows for group in self.groups)

    def type_of(self, name: str) -> pa.DataType | None:
        """Return the type of a column, or None if the file has no such column."""
        if name in self.schema.names:
            return self.schema.field(name).type
        return pa.string() if name in self.folders else None

    def part(self, start: int, stop: int) -> Self:
        """Return some of the row groups."""
        return replace(self, groups=self.groups[start:stop], first=self.first + start)

    def is_sure(self, field: pa.Field) -> bool:
        """Tell whether all of its rows have a key."""
        found = self.type_of(field.name)
        return found is not None and fits(found, field.type) and all(field.name in one.sure for one in self.groups)

    def batches(self, fields: Sequence[pa.Field], batch_rows: int) -> Iterator[tuple[list[pa.Array], list[pa.Array]]]:
        """Yield columns as the file has them, and in the types of the contract; null if it lacks one.

        Raises:
            CatalogError: if the file is damaged.
            OutageError: if its store does not answer, or no longer lets us in.
        """
        names = [field.name for field in fields if field.name in self.schema.names]
        done, pauses = 0, list(PAUSES_S)
        while True:
            try:
                for batch in itertools.islice(self._stored(names, batch_rows), done, None):
                    raw = [self._column(batch, field) for field in fields]
                    yield raw, [reader_of(f)(column, f.type) for f, column in zip(fields, raw, strict=True)]
                    done, pauses = done + 1, list(PAUSES_S)
                return
            except (pa.ArrowException, OSError) as error:
                if not STORE_ERROR.search(str(error)):
                    raise _damaged(self.uri, error) from None
                if not pauses:  # the footer was there before
                    raise OutageError(f"{self.uri}: {first_line(error)}; run the same command again") from None
            time.sleep(pauses.pop(0))

    def _stored(self, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield columns of the file as they are."""
        place = storage.locate(self.uri)
        with place.filesystem.open_input_file(place.path) as stream:
            parquet = pq.ParquetFile(stream, pre_buffer=True)
            for number in range(self.first, self.first + len(self.groups)):  # more than one would all be buffered
                yield from parquet.iter_batches(batch_size=batch_rows, row_groups=[number], columns=names)

    def _column(self, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
        if field.name in batch.schema.names:
            return batch.column(field.name)
        if field.name in self.folders:
            return pa.repeat(pa.scalar(self.folders[field.name], pa.string()), len(batch))
        return pa.nulls(len(batch))


SIDES = {"train", "val", "test"}


def parquet_files(uri: str) -> list[str]:
    """Return the Parquet files of a table, by name; [] if there are none.

    Names that begin with `.` or `_` belong to the programs that wrote them, and so do folders of such names.
    """
    if not storage.is_folder(uri):
        return [uri] if uri.lower().endswith(SUFFIXES) and storage.exists(uri) else []
    names = sorted(
        name
        for name, _ in storage.walk(uri)
        if name.lower().endswith(SUFFIXES)
        and not any(part.startswith((".", "_")) and part not in (".", "..") for part in name.split("/"))
    )
    return [storage.join(uri, name) for name in names]


def read_footers(uri: str, watched: set[str]) -> list[TableFile]:
    """Read the footers of a table's files, many at a time.

    Args:
        uri: The table's folder, or one file.
        watched: Columns to check for nulls and empty texts, so that they may be `sure`.

    Raises:
        CatalogError: naming a file that is damaged, or that has a column twice.
        StorageError: if a file's store does not answer, or does not let us in.
    """
    schemas: dict[pa.Schema, pa.Schema] = {}
    files = []
    for file in ahead(lambda file: _footer(uri, file, watched), parquet_files(uri)):
        same = schemas.setdefault(file.schema, file.schema)  # held once, and not by each of thousands of files
        files.append(file if same is file.schema else replace(file, schema=same))
    return files


def _footer(table: str, uri: str, watched: set[str]) -> TableFile:
    for pause_s in PAUSES_S:
        try:
            return _ask_footer(table, uri, watched)
        except StorageError:
            time.sleep(pause_s)
    return _ask_footer(table, uri, watched)


def _ask_footer(table: str, uri: str, watched: set[str]) -> TableFile:
    place = storage.locate(uri)
    try:
        with pq.ParquetFile(place.path, filesystem=place.filesystem) as parquet:
            schema, metadata = parquet.schema_arrow, parquet.metadata
            for name, count in Counter(schema.names).items():
                if count > 1:
                    raise CatalogError(f"{uri}: the column {name!r} is there {count} times; keep one")
            groups = tuple(_group(metadata.row_group(n), schema, watched) for n in range(metadata.num_row_groups))
    except FileNotFoundError:
        raise CatalogError(f"{uri}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        if STORE_ERROR.search(str(error)):
            raise StorageError(f"{uri}: {first_line(error)}") from None
        raise _damaged(uri, error) from None
    folders = [part.partition("=") for part in uri[len(table) :].split("/")[:-1] if "=" in part]
    said = {unquote(name): None if value == HIVE_NULL else unquote(value) for name, _, value in folders}
    return TableFile(uri, schema, said, groups)


def _group(group: Any, schema: pa.Schema, watched: set[str]) -> RowGroup:
    sure = set()
    for number in range(group.num_columns):
        column = group.column(number)
        name = column.path_in_schema.partition(".")[0]
        statistics = column.statistics if name in watched else None
        if name == "split" and statistics is not None and statistics.has_min_max:
            sure.update([name] if {statistics.min, statistics.max} <= SIDES else [])
            continue
        if name == "price" and statistics is not None:
            if statistics.has_min_max and isinstance(statistics.min, int | float):
                sure.update([name] if statistics.min >= 0 and statistics.max < MAX_PRICE else [])
            continue
        if statistics is None or not statistics.has_null_count or statistics.null_count:
            continue
        is_text = name in schema.names and pa.types.is_string(plain_type(schema.field(name).type))
        if not is_text or (statistics.has_min_max and statistics.min not in ("", b"")):
            sure.add(name)
    return RowGroup(group.num_rows, group.total_byte_size, frozenset(sure))


def is_exact(file: TableFile, asked: pa.Field) -> bool:
    """Tell whether all of a file's values of a column can be read; True if it has no such column.

    Raises:
        CatalogError: if none can.
    """
    stored = file.type_of(asked.name)
    if stored is None:
        return True
    try:
        exact = fits(stored, asked.type)
    except TypeError:
        expected = EXPECTED.get(kind_of(asked.type), str(asked.type))
        raise CatalogError(f"{file.uri}: column {asked.name!r} is {stored}; expected {expected}") from None
    return exact and (reader_of(asked) is cast or all(asked.name in group.sure for group in file.groups))


def reader_of(asked: pa.Field) -> Callable[[pa.Array, pa.DataType], pa.Array]:
    """Return what reads a column of the contract."""
    if asked.name == "split" and kind_of(asked.type) == "text":
        return cast_split
    if asked.name == "price" and kind_of(asked.type) == "float":
        return cast_price
    return cast_path if asked.name.endswith("category_path") and kind_of(asked.type) == "list" else cast


def column_names(files: Sequence[TableFile]) -> list[str]:
    """Return the first columns of some files, for an error."""
    return list(dict.fromkeys(name for file in files for name in file.schema.names))[:12]


def _damaged(uri: str, error: Exception) -> CatalogError:
    return CatalogError(f"{uri}: cannot be read as Parquet: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its class name if the text is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]
