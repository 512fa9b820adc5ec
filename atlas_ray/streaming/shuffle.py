"""Rows of several tables brought together by product."""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from atlas_ray import storage

READ_ROWS = 50_000
PARTITION_ROWS = 100_000
MAX_READ_TASKS = 1_000


Combine = Callable[[pa.Table], pa.Table]
"""Turns all rows of some products into rows of another shape."""


def by_product(
    tables: Sequence[tuple[str, str, int]],
    schema: pa.Schema,
    total: int,
    combine: Combine,
    *,
    partition_rows: int = PARTITION_ROWS,
) -> ray.data.Dataset:
    """Read tables, bring all rows of a product together, and combine them.

    Args:
        tables: Folder, name of the table in it, and the `kind` that its rows get.
        schema: One shape for the rows of all of them, with `product_id`, and `kind` (int8) where it
            matters; a column that a table lacks is null.
        total: About how many rows there are.
        combine: What becomes of some products' rows, at times of none.
        partition_rows: About how many rows it takes at a time.

    Returns:
        What `combine` returned.
    """
    files = [
        {"uri": uri, "kind": kind}
        for root, name, kind in tables
        for uri in storage.files(storage.join(root, name), suffix=".parquet")
    ]
    partitions = -(-total // partition_rows)
    if partitions <= 1:  # one task does it all: to start a shuffle would take longer than the work
        read_and_combine = functools.partial(_read_and_combine, schema=schema, combine=combine)
        whole = ray.data.from_items(files, override_num_blocks=1)
        return whole.map_batches(read_and_combine, batch_size=None, batch_format="pyarrow")
    return (
        ray.data.from_items(files, override_num_blocks=min(len(files), MAX_READ_TASKS))
        .map_batches(functools.partial(read_tagged, schema=schema), batch_size=1, batch_format="pyarrow")
        .repartition(partitions, keys=["product_id"])
        .map_batches(combine, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    )


def tagged(table: pa.Table, kind: int, schema: pa.Schema) -> pa.Table:
    """Bring a block of one table into the common shape."""
    columns = []
    for field in schema:
        if field.name == "kind":
            columns.append(pa.array(np.full(len(table), kind, dtype=np.int8)))
        elif field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    return pa.table(columns, schema=schema)


def _read_and_combine(files: pa.Table, schema: pa.Schema, combine: Combine) -> pa.Table:
    return combine(pa.concat_tables([schema.empty_table(), *read_tagged(files, schema)]).combine_chunks())


def read_tagged(files: pa.Table, schema: pa.Schema) -> Iterator[pa.Table]:
    """Read files, rows of (uri, kind), in the common shape, some row groups at a time."""
    for row in files.to_pylist():
        place = storage.locate(row["uri"])
        with place.filesystem.open_input_file(place.path) as stream:
            parquet = pq.ParquetFile(stream)
            columns = [name for name in schema.names if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(batch_size=READ_ROWS, columns=columns):
                yield tagged(pa.Table.from_batches([batch]), row["kind"], schema)
