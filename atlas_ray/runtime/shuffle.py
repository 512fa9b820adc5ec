"""A shuffle that brings the rows of several tables together, by product or by another key."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data

from atlas_ray.arrays import tagged
from atlas_ray.formats.tables import Piece, Table
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.sink import OutcomeSink
from atlas_ray.runtime.source import Shape, TableSource, read_source

PRODUCT, IMAGE, OUTCOME, CARRIED, FILTERED, QUARANTINED = range(6)
"""The kind of a row: a product, an image, or an outcome of an image: answered in this run or in an earlier one, or left
out."""
PARTITION_ROWS = 100_000
MAX_READ_TASKS, MAX_PARTITIONS = 1_000, 1_000
"""The driver holds a reference for each pair of a task and a partition, and a partition becomes a file."""


Combine = Callable[[pa.Table], pa.Table]
"""A function that turns all rows of some products, perhaps none, into rows of another shape."""


class Combined(Protocol):
    """Rows that were brought together and combined."""

    def blocks(self) -> Iterator[pa.Table]:
        """Yield them, part by part."""

    def write(self, sink: OutcomeSink) -> None:
        """Write them."""

    def stream(self) -> ray.data.Dataset:
        """Return them as a stream of Ray Data."""


@dataclass(frozen=True)
class OnRay:
    """Rows that the tasks of a shuffle combine."""

    dataset: ray.data.Dataset

    def blocks(self) -> Iterator[pa.Table]:
        """Yield the rows of a partition."""
        yield from self.dataset.iter_batches(batch_size=None, batch_format="pyarrow")

    def write(self, sink: OutcomeSink) -> None:
        """Write the rows of each task in that task."""
        self.dataset.write_datasink(sink)

    def stream(self) -> ray.data.Dataset:
        """Return the stream."""
        return self.dataset


@dataclass(frozen=True)
class InProcess:
    """Rows of one partition, which this process combines: to start another one would take longer than the work."""

    combine: Callable[[], pa.Table]

    def blocks(self) -> Iterator[pa.Table]:
        """Yield all rows."""
        yield self.combine()

    def write(self, sink: OutcomeSink) -> None:
        """Write all rows from this process."""
        sink.write_here(self.combine())

    def stream(self) -> ray.data.Dataset:
        """Return a stream of one block."""
        connect()
        return ray.data.from_arrow(self.combine())


def is_small(rows: int, partition_rows: int = PARTITION_ROWS) -> bool:
    """Tell whether `by_product` combines so many rows in this process."""
    return rows <= partition_rows


def by_product(
    tables: Sequence[tuple[Table, int]],
    schema: pa.Schema,
    total: int,
    combine: Combine,
    *,
    partition_rows: int = PARTITION_ROWS,
) -> Combined:
    """Read tables, bring all rows of a product together, and combine them: on Ray, if it is more than one partition.

    Args:
        tables: The tables, each with the `kind` of its rows.
        schema: The common shape of all rows, with `product_id`, and `kind` (int8) if that is needed; columns that a
            table was not opened with are null.
        total: The approximate number of rows.
        combine: The function of a partition.
        partition_rows: The approximate number of rows in a partition.

    Returns:
        The rows that `combine` returned.
    """
    if is_small(total, partition_rows):
        return InProcess(functools.partial(_combined, tables, schema, combine))
    return OnRay(by_key(tables, schema, min(-(-total // partition_rows), MAX_PARTITIONS), combine))


def by_key(
    tables: Sequence[tuple[Table, int]],
    schema: pa.Schema,
    partitions: int,
    combine: Combine,
    *,
    key: str = "product_id",
    spread: Shape = iter,
    made: pa.Schema | None = None,
) -> ray.data.Dataset:
    """Read tables, bring all rows of a key together, and combine them, by a shuffle whatever their number.

    Args:
        tables: As in `by_product`.
        schema: As in `by_product`.
        partitions: The number of parts that rows are brought together in, by a hash of their key.
        combine: The function of a partition.
        key: The column of the key.
        spread: A function of the tables that a task reads, which makes the rows with the key of them.
        made: The schema of those rows; by default that of the tables.

    Returns:
        The rows that `combine` returned.
    """
    files = sum(len(table.files) for table, _ in tables)
    source = TableSource(functools.partial(_pieces, tables, schema), spread)
    dataset = read_source(source, blocks=min(max(files, 1), MAX_READ_TASKS)).repartition(partitions, keys=[key])
    # Once for all tasks of a machine: it may hold arrays.
    combined = functools.partial(_of_partition, schema=made or schema, combine=ray.put(combine))
    return dataset.map_batches(combined, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)


def _pieces(tables: Sequence[tuple[Table, int]], schema: pa.Schema, count: int) -> list[Piece]:
    """Cut tables into about `count` pieces, to be read in the common shape."""
    total = max(sum(table.all_rows for table, _ in tables), 1)
    return [
        replace(piece, change=functools.partial(_tagged, kind=kind, schema=schema, change=piece.change))
        for table, kind in tables
        for piece in table.pieces(
            [name for name in table.schema.names if name in schema.names], count * table.all_rows // total
        )
    ]


def _tagged(table: pa.Table, kind: int, schema: pa.Schema, change: Combine | None) -> pa.Table:
    return tagged(table if change is None else change(table), kind, schema)


def _of_partition(table: pa.Table, schema: pa.Schema, combine: Any) -> pa.Table:
    return ray.get(combine)(table if len(table) else schema.empty_table())


def _combined(tables: Sequence[tuple[Table, int]], schema: pa.Schema, combine: Combine) -> pa.Table:
    parts = (part for piece in _pieces(tables, schema, 1) for part in piece.tables())
    return combine(pa.concat_tables([schema.empty_table(), *parts]).combine_chunks())
