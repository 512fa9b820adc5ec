"""The index of products by their vectors: a LanceDB table, in a local folder or in an object store."""

import os
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atlas_ray.errors import EmbeddingError
from atlas_ray.io import storage, stores
from atlas_ray.schemas import CATEGORY_PATH

INDEX = "index"
TABLE = "products"
COLUMNS = ("product_id", "category_path", "vector")
NEAREST = pa.schema(
    [("query", pa.int64()), ("product_id", pa.string()), ("category_path", CATEGORY_PATH), ("similarity", pa.float32())]
)


class ProductIndex:
    """Finds the products whose vectors are nearest, by cosine similarity."""

    def __init__(self, table: Any) -> None:
        """Take an opened LanceDB table; see `open`."""
        self._table = table

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

    def group(self, groups: int) -> None:
        """Group the products by their vectors, so that a search looks at the nearest groups alone."""
        from lancedb.index import BTree, IvfFlat

        self._table.create_index("vector", config=IvfFlat(distance_type="cosine", num_partitions=groups))
        self._table.create_index("product_id", config=BTree())

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


def store_options(uri: str) -> dict[str, str]:
    """Return where the store of an index is, as LanceDB's storage options; {} for a local folder."""
    return stores.store_of(stores.split(uri)[0]).options() if stores.is_object(uri) else {}


def _connect(output: str) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns that a table that it is to make is not there yet
    import lancedb

    uri = storage.join(output, INDEX)
    return lancedb.connect(uri, storage_options=store_options(uri))
