"""The answers of models of labels about the labelled products of a split: an actor that asks them, and their products.

Dimensions: N labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from atlas_ray.arrays import Array, Booleans, list_offsets, numbered
from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import NotFiniteError
from atlas_ray.modalities import PICTURE
from atlas_ray.prediction.aggregate import Listed, Means, has_a_say
from atlas_ray.prediction.label_lists import listed_labels
from atlas_ray.prediction.label_models import LabelModels
from atlas_ray.runtime.labelled import BATCH, products_of

LISTED = pa.list_(pa.struct([("label", pa.int32()), ("probability", pa.float32())]))


def schema_of(models: int) -> pa.Schema:
    """Return the schema of the answers about pictures.

    `has` are the labels of the product, null if none of its paths is a leaf; `seen`: whether the picture was read;
    `fitted`: whether each model was fitted on the product; and for each model what it lists, null without an answer.
    """
    return pa.schema(
        [
            ("product_id", pa.string()),
            ("has", pa.list_(pa.int32())),
            ("seen", pa.bool_()),
            ("fitted", pa.list_(pa.bool_())),
            *((f"model_{number}", LISTED) for number in range(models)),
        ]
    )


class LabelsActor:
    """An actor that runs models of labels over blocks of pictures."""

    def __init__(self, uris: Sequence[str], precision: str, engine: str, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._uris = uris
        artifacts = {uri: load_artifact(uri, target="labels") for uri in uris}
        self._models = LabelModels(artifacts, precision=precision, engine=engine)
        first = artifacts[uris[0]]
        assert first.labels is not None
        self._leaves = first.taxonomy.leaf_positions
        self._fitted = [artifacts[uri].fitted for uri in uris]
        self._has = first.labels.targets(first.taxonomy.leaves)  # (leaves, N)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return a row of `schema_of` for each picture; of products without a leaf there is one."""
        models = self._models
        kept, has, products = products_of(table, self._leaves, models.modalities, models.image_size_px, self._has)
        listed: list[list[pa.Array]] = [[] for _ in self._uris]
        for batch in products.split(BATCH):
            answers = models(batch)
            for parts, uri in zip(listed, self._uris, strict=True):
                log_odds, present = (part.cpu() for part in answers[uri])
                if wrong := int((~log_odds[present].isfinite().all(1)).sum()):
                    raise NotFiniteError(
                        f"{uri}: its answers for {wrong} of {len(batch)} products are NaN or infinite; train it again"
                    )
                parts.append(_lists(log_odds.float().sigmoid().numpy(), present.numpy()))
        ids = kept["product_id"].to_pylist()
        fitted = [np.zeros(len(ids), bool) if one is None else one.uses(ids) > 0 for one in self._fitted]
        label = np.nonzero(has)[1]
        schema = schema_of(len(self._uris))
        rows = pa.table(
            {
                "product_id": kept["product_id"],
                "has": pa.ListArray.from_arrays(list_offsets(has.sum(1)), pa.array(label, pa.int32())),
                "seen": np.ones(len(ids), bool) if products.seen is None else products.seen.numpy(),
                "fitted": pa.array(list(np.stack(fitted, 1)), pa.list_(pa.bool_())),
                **{
                    f"model_{number}": pa.concat_arrays(parts) if parts else pa.nulls(0, LISTED)
                    for number, parts in enumerate(listed)
                },
            },
            schema=schema,
        )
        others = sorted(set(table["product_id"].to_pylist()) - set(ids))
        return pa.concat_tables([rows, pa.Table.from_pylist([{"product_id": name} for name in others], schema=schema)])


def _lists(probability: Array, present: Booleans) -> pa.Array:
    """Return what pictures list as a column, (pictures,), null without an answer."""
    found = listed_labels(np.where(present[:, None], probability, 0), np.arange(len(probability)))
    values = [pa.array(found.answer, pa.int32()), pa.array(found.probability, pa.float32())]
    lengths = np.bincount(found.picture, minlength=len(probability))
    return pa.ListArray.from_arrays(
        list_offsets(lengths),
        pa.StructArray.from_arrays(values, fields=list(LISTED.value_type)),
        mask=pa.array(~present),
    )


@dataclass(frozen=True)
class LabelledProducts:
    """Labelled products, and what a model says of them over all of their pictures, as a scoring run does.

    Attributes:
        ids: (products,)
        has: (products, N) bool: the labels that each has.
        means: What the model lists.
        answered: (products,) bool: whether it has an answer.
    """

    ids: pa.Array
    has: Booleans
    means: Means
    answered: Booleans


def products_of_answers(table: pa.Table, number: int, labels: int, modalities: Sequence[str]) -> LabelledProducts:
    """Join the answers about the pictures of each product.

    Args:
        table: Rows of `schema_of`, all of each product; those without a leaf are passed over.
        number: The number of the model.
        labels: How many labels there are.
        modalities: What the model reads.
    """
    table = table.filter(table["has"].is_valid()).combine_chunks()
    ids, product = numbered(table["product_id"])
    has = np.zeros((len(ids), labels), bool)
    own = table["has"].combine_chunks()
    has[product[own.value_parent_indices().to_numpy()], own.flatten().to_numpy()] = True
    column = table[f"model_{number}"].combine_chunks()
    seen = table["seen"].to_numpy() | (PICTURE not in modalities)
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))  # (pictures,) with an answer
    rows = rows[has_a_say(product[rows], seen[rows])] if len(rows) else rows
    lists = column.take(pa.array(rows))
    values: Any = lists.flatten()
    listed = Listed(
        picture=lists.value_parent_indices().to_numpy(),
        answer=values.field("label").to_numpy().astype(np.int64),
        probability=values.field("probability").to_numpy().astype(np.float64),
        product=product[rows],
        pictures=np.bincount(product[rows], minlength=len(ids)),
    )
    return LabelledProducts(ids, has, listed.means(), listed.pictures > 0)
