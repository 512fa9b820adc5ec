"""The vectors of a product's pictures made into one."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlas_ray.arrays import numbered
from atlas_ray.schemas import embeddings


def combine(table: pa.Table, widths: Sequence[int], model_id: str) -> pa.Table:
    """Turn the rows of all pictures of some products into embeddings, one row a product.

    Args:
        table: With `product_id`, `category_path`, `split`, `vector` and `picture_error`.
        widths: How wide each modality's part of a vector is.
        model_id: What made them.
    """
    # Of a product's rows the first one speaks for it, so that an error comes before none.
    table = table.sort_by([("product_id", "ascending"), ("picture_error", "ascending")]).combine_chunks()
    _, owner = numbered(table["product_id"])
    _, first = np.unique(owner, return_index=True)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, sum(widths))
    joined = joined_vectors(np.add.reduceat(vectors, first, axis=0) if len(first) else vectors, widths)
    columns = {name: table[name].take(pa.array(first)) for name in table.column_names}
    columns["vector"] = vector_column(joined)
    columns["model_id"] = pa.repeat(pa.scalar(model_id), len(first))
    schema = embeddings(sum(widths))
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def vector_column(vectors: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Return vectors, (rows, width), as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def joined_vectors(summed: NDArray[np.float32], widths: Sequence[int]) -> NDArray[np.float32]:
    """Scale each modality's part to length 1, and then the whole.

    So the cosine similarity of two products that have the same modalities is the mean of that of each.
    A modality that one of them lacks counts as 0.

    Args:
        summed: (products, width) sums of what a model says of each product's pictures; 0 in the parts
            of modalities that the product does not have.
        widths: How wide each part is.
    """
    parts = [_unit(part) for part in np.split(summed, np.cumsum(widths)[:-1], axis=1)]
    return _unit(np.concatenate(parts, axis=1))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit
