"""Lists of labels with their probabilities, as pictures and products have them.

Dimensions: pictures; products; N labels.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, Booleans, list_offsets
from atlas_ray.prediction.aggregate import Listed, Means
from atlas_ray.schemas import LABEL, LABELS

LISTED_FROM = 0.001
"""The least probability of a label that a picture lists; a smaller one counts as 0."""


def listed_labels(probability: Array, product: Array) -> Listed:
    """Return the labels that pictures list.

    Args:
        probability: (pictures, N), each a number.
        product: (pictures,) the number of the product of each picture.
    """
    picture, label = np.nonzero(probability >= LISTED_FROM)
    values = probability[picture, label].astype(np.float64)
    return Listed(picture, label, values, product, np.bincount(product))


def read_labels(table: pa.Table, names: pa.Array, product: Array, products: int) -> Listed:
    """Return the labels that the answers to pictures list.

    Args:
        table: A row a picture, with the columns `LABELS`.
        names: (N,) the names of the labels.
        product: (pictures,) the number of the product of each picture.
        products: How many there are.
    """
    columns = [table[field.name].combine_chunks() for field in LABELS]
    values = pa.concat_arrays([column.flatten() for column in columns])
    return Listed(
        picture=np.concatenate([column.value_parent_indices().to_numpy() for column in columns]),
        answer=pc.index_in(values.field("label"), names).to_numpy(zero_copy_only=False),
        probability=values.field("probability").to_numpy(zero_copy_only=False).astype(np.float64),
        product=product,
        pictures=np.bincount(product, minlength=products),
    )


def applied(means: Means, thresholds: Array) -> Booleans:
    """Return which of the probabilities are at least the thresholds of their labels, (pairs,) bool.

    Args:
        means: The probabilities.
        thresholds: (N,) one for each label.
    """
    reached: Booleans = means.probability >= thresholds[means.answer]
    return reached


def label_columns(means: Means, names: pa.Array, thresholds: Array, answered: Booleans) -> dict[str, pa.Array]:
    """Return the columns `LABELS` of products, best first, without a loop over them.

    Args:
        means: Their labels.
        names: (N,) the names of the labels.
        thresholds: (N,) the least probability of each that is applied.
        answered: (products,) which have an answer; the others are null.
    """
    reached = applied(means, thresholds)
    columns = {}
    for field, kept in zip(LABELS, (reached, ~reached), strict=True):
        values = [names.take(pa.array(means.answer[kept])), pa.array(means.probability[kept], pa.float32())]
        lengths = np.bincount(means.product[kept], minlength=len(answered))
        columns[field.name] = pa.ListArray.from_arrays(
            list_offsets(lengths), pa.StructArray.from_arrays(values, fields=list(LABEL)), mask=pa.array(~answered)
        )
    return columns


def names_of(thresholds: Mapping[str, float]) -> tuple[pa.Array, Array]:
    """Return the names of labels and their thresholds, (N,) each."""
    return pa.array(thresholds, pa.string()), np.array([*thresholds.values()], np.float64)
