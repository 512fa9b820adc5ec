"""The index of products by their vectors: a LanceDB table, in a local folder or in an object store."""

import os
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atlas_ray.errors import EmbeddingError
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage, stores
from atlas_ray.schemas import CATEGORY_PATH, embeddings

EMBEDDINGS = "embeddings"
INDEX = "index"
TABLE = "products"
EXACT_ROWS = 20_000
"""Up to so many products a search looks at all of them."""
ROWS_AT_ONCE = 1024
COLUMNS = ("product_id", "category_path", "vector")
NEAREST = pa.schema(
    [("query", pa.int64()), ("product_id", pa.string()), ("category_path", CATEGORY_PATH), ("similarity", pa.float32())]
)


def embedding_batches(output: str, width: int) -> Iterator[pa.RecordBatch]:
    """Stream `COLUMNS` of the embeddings of a run."""
    table = open_table(storage.join(output, EMBEDDINGS), embeddings(width), columns=COLUMNS)
    for batch in table.batches(batch_rows=ROWS_AT_ONCE):
        yield from batch.to_batches()


class ProductIndex:
    """Finds the products whose vectors are nearest, by cosine similarity."""

    def __init__(self, table: Any) -> None:
        """Take an opened LanceDB table; see `build` and `open`."""
        self._table = table

    @classmethod
    def build(cls, output: str, width: int, *, exact_rows: int = EXACT_ROWS) -> Self:
        """Write the index of a run's embeddings, in the place of another one.

        Args:
            output: The run's folder.
            width: Of the vectors.
            exact_rows: Where there are more products, they are grouped (IVF), and a search looks at
                the groups that are nearest.
        """
        schema = pa.schema([embeddings(width).field(name) for name in COLUMNS])
        storage.delete_folder(storage.join(output, INDEX))
        batches = pa.RecordBatchReader.from_batches(schema, embedding_batches(output, width))
        table = _connect(output).create_table(TABLE, data=batches)
        if (rows := table.count_rows()) > exact_rows:
            from lancedb.index import BTree, IvfFlat

            table.create_index("vector", config=IvfFlat(distance_type="cosine", num_partitions=int(rows**0.5)))
            table.create_index("product_id", config=BTree())
        return cls(table)

    @classmethod
    def open(cls, output: str) -> Self:
        """Open the index of a finished run.

        Raises:
            EmbeddingError: if it is missing or damaged.
        """
        try:
            return cls(_connect(output).open_table(TABLE))
        except (ValueError, RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise EmbeddingError(f"{storage.join(output, INDEX)} cannot be opened: {reason}; embed anew") from None

    def vector(self, product_id: str) -> NDArray[np.float32] | None:
        """Return a product's vector, (width,), or None if it has none."""
        from lancedb.expr import col, lit

        found = self._table.search().where(col("product_id") == lit(product_id)).select(["vector"]).limit(1).to_arrow()
        vector: NDArray[np.float32] = found["vector"].combine_chunks().flatten().to_numpy()
        return vector if len(found) else None

    def nearest(self, vectors: NDArray[np.float32], k: int) -> pa.Table:
        """Find the `k` nearest products of each vector, the nearest first.

        Args:
            vectors: (queries, width).
            k: How many.

        Returns:
            Rows of `NEAREST`, in the order of the queries.
        """
        query = self._table.search(list(vectors), vector_column_name="vector").distance_type("cosine")
        found = query.select(["product_id", "category_path", "_distance"]).limit(k).to_arrow()
        if "query_index" not in found.column_names:  # of a single one
            found = found.append_column("query_index", pa.array(np.zeros(len(found), np.int64)))
        similarity = pc.min_element_wise(pc.subtract(1.0, found["_distance"]), 1.0)  # rounding goes past 1
        found = found.append_column("similarity", similarity)
        found = found.sort_by([("query_index", "ascending"), ("similarity", "descending"), ("product_id", "ascending")])
        return found.rename_columns({"query_index": "query"}).select(NEAREST.names).cast(NEAREST)


def _connect(output: str) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns that a table that it is to make is not there yet
    import lancedb

    uri = storage.join(output, INDEX)
    options = stores.store_of(stores.split(uri)[0]).options() if stores.is_object(uri) else {}
    return lancedb.connect(uri, storage_options=options)
