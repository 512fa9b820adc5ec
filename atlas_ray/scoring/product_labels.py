"""The labels of a product, from those that its pictures list."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import Array, first_of_each, or_null, row_at
from atlas_ray.prediction.label_lists import label_columns, names_of, read_labels


def merge_labels(scored: pa.Table, owner: Array, count: int, *, thresholds: Mapping[str, float]) -> dict[str, pa.Array]:
    """Return the labels of products, as `atlas_ray.scoring.combine.Merge`.

    Args:
        scored: The answers to pictures.
        owner: (pictures,) the number of the product of each.
        count: How many products there are.
        thresholds: The least probability of each label that is applied.
    """
    names, least = names_of(thresholds)
    listed = read_labels(scored, names, owner, count)
    most = np.zeros(len(scored))  # (pictures,)
    np.maximum.at(most, listed.picture, listed.probability)
    surest = np.flatnonzero(first_of_each(owner, -most))
    return {
        **label_columns(listed.means(), names, least, listed.pictures > 0),
        "image_uri": scored["image_uri"].take(or_null(row_at(owner[surest], count, surest))),
    }
