"""Tables of Parquet files as any program writes them, opened in the contract's shape; every reader comes through here.

`open_table` lists the files, reads all their footers, and checks every column that is asked for in every file, so
that a column that does not fit is refused, with its file, before work starts. The rows have the contract's names
and types (`atlas_ray.schemas`): a column that a file lacks is null, other layouts and widths are cast, and a value
that says nothing of its kind is null and counted. Rows with a null in a column that must not have one never
come out; they are counted, and `Table.unusable` names them for the quarantine.

A picture's `image_id` is always derived from its product and its URI: the stored column may hold something else, such
as numbers within each product.
"""

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.errors import CatalogError
from atlas_ray.formats.columns import cast, plain_type, unreadable
from atlas_ray.formats.table_files import TableFile, column_names, first_line, is_exact, read_footers, reader_of
from atlas_ray.io import storage
from atlas_ray.io.ahead import ahead
from atlas_ray.schemas import image_ids

READ_ROWS = 50_000
AHEAD_FILES, AHEAD_BYTES = 8, 128 * 1024 * 1024
"""Limits of what is read before it is asked for: files, and about their size in memory."""
CURRENT = "current.json"
"""The document in a catalogue with several versions that names the current one."""
VERSION = re.compile(r"versions/\d{5,}")
UNFINISHED = "unfinished.json"
"""The marker file beside a catalogue's tables while an import writes them; until it is gone they must not be used."""
ROW, LACKS = "row", "lacks"
"""Columns beside the keys of rows that lack one: their number in the file, from 1, and the first key that they lack."""
INFLATION, BYTES_PER_VALUE = 4, 128
"""Rough limits: the size of rows in memory relative to their file, and the bytes of one value."""


@dataclass(frozen=True)
class Piece:
    """Row groups of a file, to be read in the table's shape, in this or another process."""

    file: TableFile
    schema: pa.Schema
    """The schema of the rows that are read."""
    keys: pa.Schema
    foreign: bool
    """Whether another program may have written the files: `image_id` is derived, and an empty key counts as missing."""
    change: Callable[[pa.Table], pa.Table] | None = None
    """A function that the rows pass through when they are read."""

    @property
    def rows(self) -> int:
        """How many rows the file has there."""
        return self.file.rows

    @property
    def bytes(self) -> int:
        """About how much memory its rows take."""
        stored = INFLATION * sum(group.bytes for group in self.file.groups)
        return max(1, min(stored, self.rows * len(self.schema) * BYTES_PER_VALUE))

    def tables(self, batch_rows: int = READ_ROWS) -> Iterator[pa.Table]:
        """Yield its rows, but for those without a key, some at a time.

        Raises:
            CatalogError: if the file is damaged.
        """
        fields = [field for field in self.schema if not (self.foreign and field.name == "image_id")]
        fields += [key for key in self.keys if key not in fields]
        unsure = [key.name for key in self.keys if not self.file.is_sure(key)]
        for _, read in self.file.batches(fields, batch_rows):
            columns = {field.name: column for field, column in zip(fields, read, strict=True)}
            if unsure:
                good = functools.reduce(pc.and_, [_present(columns[name], self.foreign) for name in unsure])
                columns = {name: column.filter(good) for name, column in columns.items()}
            if self.foreign and "image_id" in self.schema.names:
                ids = image_ids(columns["product_id"].to_pylist(), columns["image_uri"].to_pylist())
                columns["image_id"] = pa.array(ids)
            rows = pa.Table.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)
            yield rows if self.change is None else self.change(rows)


@dataclass(frozen=True)
class Unreadable:
    """Values of a column that say nothing of its kind, and are read as null."""

    values: int
    example: str
    file: str


@dataclass(frozen=True)
class Table:
    """A table, opened and checked."""

    uri: str
    files: tuple[TableFile, ...]
    """The files that have rows."""
    schema: pa.Schema
    """The columns that may be read."""
    keys: pa.Schema
    """The columns that must have a value in every row."""
    foreign: bool
    """Whether another program may have written the files: `image_id` is derived, and an empty key counts as missing."""
    unusable_rows: int = 0
    """The number of rows without a key, which are not read."""
    unusable_example: str = ""
    """A description of the first row without a key."""
    unreadable: Mapping[str, Unreadable] = field(default_factory=dict)
    """Values that cannot be read, by column."""
    change: Callable[[pa.Table], pa.Table] | None = None
    """A function that rows pass through when they are read."""

    @functools.cached_property
    def all_rows(self) -> int:
        """How many rows the files have."""
        return sum(file.rows for file in self.files)

    @property
    def rows(self) -> int:
        """How many rows come out."""
        return self.all_rows - self.unusable_rows

    @property
    def losses(self) -> list[str]:
        """A line about the rows that do not come out, and about each column with values that cannot be read."""
        lines = [
            f"{self.uri}: {one.values} values of {name!r} cannot be read and count as missing, such as {one.example} "
            f"in {one.file}"
            for name, one in self.unreadable.items()
        ]
        if self.unusable_rows:
            count = f"{self.unusable_rows} of {self.all_rows} rows"
            lines.insert(0, f"{self.uri}: {count} have no key and are left out, such as {self.unusable_example}")
        return lines

    def pieces(self, columns: Sequence[str] | None = None, count: int = 1) -> list[Piece]:
        """Cut the table into at least one piece a file, and about `count` of them, as far as row groups allow."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        pieces = []
        for file in self.files:
            parts = min(len(file.groups), max(1, round(count * file.rows / self.all_rows)))
            edges = [len(file.groups) * part // parts for part in range(parts + 1)]
            pieces += [
                Piece(file.part(start, stop), schema, self.keys, self.foreign, self.change)
                for start, stop in itertools.pairwise(edges)
            ]
        return pieces

    def batches(
        self, columns: Sequence[str] | None = None, *, where: Any = None, batch_rows: int = READ_ROWS
    ) -> Iterator[pa.Table]:
        """Yield the rows in order, some at a time, or those that an expression over these columns picks.

        Small files are read side by side, before their turn.
        """
        pieces = self.pieces(columns)
        largest = max((piece.bytes for piece in pieces), default=1)
        threads = min(AHEAD_FILES, AHEAD_BYTES // (2 * largest))  # `ahead` holds two results a thread
        files: Iterable[Iterable[pa.Table]] = (piece.tables(batch_rows) for piece in pieces)
        if threads > 1 and len(pieces) > 1:
            files = ahead(lambda piece: list(piece.tables(batch_rows)), pieces, threads=threads)
        for table in itertools.chain.from_iterable(files):
            yield table if where is None else table.filter(where)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        return pa.concat_tables([schema.empty_table(), *self.batches(columns)])

    def unusable(self) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
        """Yield (file, number of the row, from 1, the key that it lacks, its keys) of each row without a key."""
        for uri, lacking in ahead(self._lacking, self._unsure(), threads=AHEAD_FILES):
            for row in lacking.to_pylist():
                number, key = row.pop(ROW), row.pop(LACKS)
                yield uri, number, key, row

    def _unsure(self) -> Iterator[tuple[TableFile, int]]:
        """Yield the row groups that may have a row without a key, each with the number of rows before it."""
        for file in self.files:
            before = 0
            for number in range(len(file.groups)):
                group = file.part(number, number + 1)
                if not all(group.is_sure(key) for key in self.keys):
                    yield group, before
                before += group.rows

    def _lacking(self, place: tuple[TableFile, int]) -> tuple[str, pa.Table]:
        """Return a file, and the keys of those rows of a row group that lack one, with `ROW` and `LACKS`."""
        group, before = place
        found = [pa.schema([*self.keys, (ROW, pa.int64()), (LACKS, pa.string())]).empty_table()]
        for _, keys in group.batches(list(self.keys), READ_ROWS):
            lacking = np.stack([~_present(key, self.foreign).to_numpy(zero_copy_only=False) for key in keys])
            rows = np.flatnonzero(lacking.any(axis=0))
            first = pa.array(self.keys.names).take(pa.array(lacking[:, rows].argmax(axis=0)))
            columns = [*(key.take(pa.array(rows)) for key in keys), pa.array(before + rows + 1), first]
            found.append(pa.table(columns, schema=found[0].schema))
            before += lacking.shape[1]
        return group.uri, pa.concat_tables(found)


def open_table(
    uri: str,
    contract: pa.Schema,
    *,
    columns: Sequence[str] | None = None,
    needed: Sequence[str] = (),
    others: bool = False,
    foreign: bool = False,
    may_be_missing: bool = False,
) -> Table:
    """Open a table and check it.

    Args:
        uri: Its folder, which may hold folders such as `split=train/`, or one Parquet file. What else lies there, a
            README or hidden files, is left alone.
        contract: What it has to say.
        columns: What will be read of it; None: all of the contract.
        needed: The columns that some file has to have. The contract's keys every file with rows has to have.
        others: Whether its further columns are read, too, as they are.
        foreign: Whether another program may have written it, as a catalogue: `image_id` is then derived, and an empty
            key is none.
        may_be_missing: Whether there may be no file; the table then has no row.

    Raises:
        CatalogError: naming the file that is damaged, lacks a key, or has a column of another kind; or the table,
            if there is none, or a needed column is in no file; or the catalogue whose import did not finish.
        StorageError: if it cannot be listed.
    """
    if foreign:
        catalog, _, name = uri.rpartition("/")
        _check_finished(catalog)
        uri = storage.join(current(catalog), name)
    fields = [contract.field(name) for name in (contract.names if columns is None else columns)]
    keys = pa.schema([f for f in contract if not f.nullable and not (foreign and f.name == "image_id")])
    files = read_footers(uri, {*keys.names, *(f.name for f in fields if reader_of(f) is not cast)})
    if not files and not may_be_missing:
        raise CatalogError(f"{uri}: no {uri.rpartition('/')[2]} table, for there is no Parquet file in it")
    filled = [file for file in files if file.rows]
    for name in needed:
        if files and all(file.type_of(name) is None for file in files):
            raise CatalogError(f"{uri}: no column {name!r}; it has {column_names(files)}")
    inexact = set()
    for file in filled:
        for key in keys:
            if file.type_of(key.name) is None:
                raise CatalogError(f"{file.uri}: no column {key.name!r}; it has {column_names([file])}")
        for one in [*keys, *(f for f in fields if not (foreign and f.name == "image_id"))]:
            if not is_exact(file, one):
                inexact.add(one.name)
    schema = pa.schema(fields + (_others(filled, contract) if others else []))
    table = Table(uri, tuple(filled), schema, keys, foreign)
    values = {name: found for name in inexact - {*keys.names} if (found := _unreadable(table, name))}
    unusable = table.unusable()
    first = next((f"row {number} of {file}, without {key}" for file, number, key, _ in unusable), "")
    return replace(
        table, unusable_rows=sum(1 for _ in unusable) + bool(first), unusable_example=first, unreadable=values
    )


def current(catalog: str) -> str:
    """Return the folder of a catalogue's tables: its own, or that of its current version.

    Raises:
        CatalogError: if the document that names it is damaged.
    """
    uri = storage.join(catalog, CURRENT)
    if not storage.exists(uri):
        return catalog
    try:
        version = json.loads(storage.read_bytes(uri))["version"]
        if not VERSION.fullmatch(version):
            raise ValueError(version)
    except (ValueError, TypeError, KeyError) as error:
        raise CatalogError(f"{uri} is damaged ({type(error).__name__}: {error}); restore it, or import anew") from None
    return storage.join(catalog, version)


def _check_finished(catalog: str) -> None:
    if storage.exists(storage.join(catalog, UNFINISHED)) and not storage.exists(storage.join(catalog, "run.json")):
        raise CatalogError(
            f"{catalog}: its import has not finished ({UNFINISHED} stands there), so rows are missing; run the same "
            "import again"
        )


def _present(key: pa.Array, foreign: bool) -> pa.Array:
    """Return which rows have a key; our own tables also have empty ones, such as the URI of no picture."""
    return pc.not_equal(key, "").fill_null(False) if foreign and key.type == pa.string() else key.is_valid()


def _unreadable(table: Table, name: str) -> Unreadable | None:
    """Look through a column of which some values may say nothing."""
    asked = table.schema.field(name)
    files = (file for file in table.files if not is_exact(file, asked))
    lost = [one for one in ahead(lambda file: _unreadable_in(file, asked), files, threads=AHEAD_FILES) if one.values]
    return replace(lost[0], values=sum(one.values for one in lost)) if lost else None


def _unreadable_in(file: TableFile, asked: pa.Field) -> Unreadable:
    count, example = 0, ""
    for (raw,), _ in file.batches([asked], READ_ROWS):
        lost = unreadable(raw, asked.type, reader_of(asked))
        unread = pc.sum(lost).as_py() or 0
        if unread and not count:
            example = repr(raw.filter(lost)[0].as_py())[:80]
        count += unread
    return Unreadable(count, example, file.uri)


def _others(files: Sequence[TableFile], contract: pa.Schema) -> list[pa.Field]:
    """Return the columns that the contract does not name, each of the widest type that it has."""
    merged = pa.schema([])
    for file in files:
        columns = {one.name: plain_type(one.type) for one in file.schema if one.name not in contract.names}
        columns = {name: pa.string() for name in file.folders if name not in contract.names} | columns
        try:
            merged = pa.unify_schemas([merged, pa.schema(columns)], promote_options="permissive")
        except pa.ArrowException as error:
            raise CatalogError(
                f"{file.uri}: a column is of another type than in files before: {first_line(error)}"
            ) from None
    return list(merged)
