"""The index of a run's embeddings, written by Ray's tasks."""

import pyarrow as pa

from atlas_ray.embedding.index import COLUMNS, INDEX, TABLE, ProductIndex, embedding_table, store_options
from atlas_ray.io import storage
from atlas_ray.runtime.settings import file_rows
from atlas_ray.runtime.source import read_table
from atlas_ray.schemas import embeddings

EXACT_ROWS = 20_000
"""Up to so many products a search looks at all of them."""
FILE_NUMBERS = 2**24
"""Of the vectors in a file of the index: 64 MiB."""


def build_index(output: str, width: int, *, exact_rows: int = EXACT_ROWS) -> ProductIndex:
    """Write the index of a run's embeddings, in the place of another one.

    Args:
        output: The run's folder.
        width: Of the vectors.
        exact_rows: Where there are more products, they are grouped (IVF), and a search looks at the groups that are
            nearest.
    """
    table, uri = embedding_table(output, width), storage.join(output, INDEX)
    rows = file_rows(max(1, FILE_NUMBERS // width), table.rows)
    storage.delete_folder(uri)
    read_table(table, COLUMNS, blocks=-(-table.rows // rows)).write_lance(
        storage.join(uri, f"{TABLE}.lance"),
        schema=pa.schema([embeddings(width).field(name) for name in COLUMNS]),
        min_rows_per_file=rows,
        max_rows_per_file=2 * rows,
        storage_options=store_options(uri),
    )
    index = ProductIndex.open(output)
    if table.rows > exact_rows:
        index.group(int(table.rows**0.5))
    return index
