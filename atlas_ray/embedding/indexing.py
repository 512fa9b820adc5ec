"""The index of a run's embeddings, written by Ray's tasks."""

import functools
import json
from typing import Any

import pyarrow as pa

from atlas_ray.embedding.index import COLUMNS, INDEX, TABLE, ProductIndex, store_options
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.runs.embedded import EMBEDDINGS
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
    import lance
    from lance.fragment import FragmentMetadata

    table = open_table(storage.join(output, EMBEDDINGS), embeddings(width), columns=COLUMNS)
    folder = storage.join(output, INDEX)
    uri, options = storage.join(folder, f"{TABLE}.lance"), store_options(folder)
    schema = pa.schema([embeddings(width).field(name) for name in COLUMNS])
    rows = file_rows(max(1, FILE_NUMBERS // width), table.rows)
    storage.delete_folder(folder)
    written = read_table(table, COLUMNS, blocks=-(-table.rows // rows)).map_batches(
        functools.partial(_write_file, uri=uri, schema=schema, options=options),
        batch_size=rows,
        batch_format="pyarrow",
    )
    fragments = [FragmentMetadata.from_json(row["fragment"]) for row in written.iter_rows()]
    lance.LanceDataset.commit(uri, lance.LanceOperation.Overwrite(schema, fragments), storage_options=options)
    index = ProductIndex.open(output)
    if table.rows > exact_rows:
        index.group(int(table.rows**0.5))
    return index


def _write_file(vectors: pa.Table, uri: str, schema: pa.Schema, options: dict[str, str]) -> dict[str, Any]:
    """Write a file of an index, which is not in it before it is committed; return what commits it."""
    from lance.fragment import write_fragments

    fragments = write_fragments(vectors.select(schema.names).cast(schema), uri, schema=schema, storage_options=options)
    return {"fragment": [json.dumps(fragment.to_json()) for fragment in fragments]}
