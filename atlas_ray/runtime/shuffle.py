"""A shuffle that brings the rows of several tables together, by product or by another key."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
import ray.data

from atlas_ray.arrays import tagged
from atlas_ray.formats.tables import Piece, Table
from atlas_ray.runtime.source import Shape, TableSource, read_source

PRODUCT, IMAGE, OUTCOME, CARRIED, FILTERED, QUARANTINED = range(6)
"""The kind of a row: a product, an image, or an outcome of an image: answered in this run or in an earlier one, or left
out."""
PARTITION_ROWS = 100_000
MAX_READ_TASKS, MAX_PARTITIONS = 1_000, 1_000
"""The driver holds a reference for each pair of a task and a partition, and a partition becomes a file."""


Combine = Callable[[pa.Table], pa.Table]
"""A function that turns all rows of some products, perhaps none, into rows of another shape."""


def by_product(
    tables: Sequence[tuple[Table, int]],
    schema: pa.Schema,
    total: int,
    combine: Combine,
    *,
    partition_rows: int = PARTITION_ROWS,
) -> ray.data.Dataset:
    """Read tables, bring all rows of a product together, and combine them.

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
    partitions = min(-(-total // partition_rows), MAX_PARTITIONS)
    if partitions <= 1:  # a single task, because starting a shuffle would take longer than the work
        whole = functools.partial(_combined, schema=schema, combine=combine)
        return read_source(TableSource(functools.partial(_pieces, tables, schema), whole), blocks=1)
    return by_key(tables, schema, partitions, combine)


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


def _combined(tables: Iterable[pa.Table], schema: pa.Schema, combine: Combine) -> list[pa.Table]:
    return [combine(pa.concat_tables([schema.empty_table(), *tables]).combine_chunks())]
