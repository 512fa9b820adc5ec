"""A shuffle that brings the rows of several tables together by product."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
import ray.data

from atlas_ray.arrays import tagged
from atlas_ray.formats.tables import Piece, Table
from atlas_ray.runtime.source import TableSource, read_source

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
    pieces = functools.partial(_pieces, tables, schema)
    partitions = min(-(-total // partition_rows), MAX_PARTITIONS)
    if partitions <= 1:  # a single task, because starting a shuffle would take longer than the work
        whole = functools.partial(_combined, schema=schema, combine=combine)
        return read_source(TableSource(pieces, whole), blocks=1)
    files = sum(len(table.files) for table, _ in tables)
    dataset = read_source(TableSource(pieces), blocks=min(max(files, 1), MAX_READ_TASKS))
    dataset = dataset.repartition(partitions, keys=["product_id"])
    return dataset.map_batches(combine, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)


def _pieces(tables: Sequence[tuple[Table, int]], schema: pa.Schema, count: int) -> list[Piece]:
    """Cut tables into about `count` pieces, to be read in the common shape."""
    total = max(sum(table.all_rows for table, _ in tables), 1)
    return [
        replace(piece, change=functools.partial(tagged, kind=kind, schema=schema))
        for table, kind in tables
        for piece in table.pieces(
            [name for name in table.schema.names if name in schema.names], count * table.all_rows // total
        )
    ]


def _combined(tables: Iterable[pa.Table], schema: pa.Schema, combine: Combine) -> list[pa.Table]:
    return [combine(pa.concat_tables([schema.empty_table(), *tables]).combine_chunks())]
