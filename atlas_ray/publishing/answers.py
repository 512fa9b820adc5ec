"""The answers of a scoring run as other systems take them: one category a product, and who says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.runs.leaves import find_leaves, path_lengths, path_prefixes
from atlas_ray.schemas import CATEGORIZED, CATEGORY_PATH, path_keys
from atlas_ray.taxonomy import CategoryPath

OF_THE_CATALOGUE = ("store", "brand", "sku", "availability", "attributes")
"""The columns of a run's products that are delivered as they are."""
READ = (
    "product_id", "category_path", "probability", "level_probabilities", "alternatives", "decided_level",
    "true_category_path", "true_category_paths", "labels", *OF_THE_CATALOGUE,
)  # fmt: skip
"""The columns of a run's products that `deliver` takes."""
DELIVERED = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        ("category_path", CATEGORY_PATH),
        ("category_id", pa.string()),
        ("probability", pa.float32()),
        ("source", pa.string()),
        ("needs_review", pa.bool_()),
        ("category_paths", pa.list_(CATEGORY_PATH)),
        CATEGORIZED.field("labels"),
        *(CATEGORIZED.field(name) for name in OF_THE_CATALOGUE),
    ]
)
"""Delivered products: one row for each product of a run.

`source` is `correction`, `label` or `model`, null where nobody names a category; a label above the leaf yields to an
answer of the model below it. `probability` is the model's, null where a person named the category. `needs_review`: the
category is the model's and not sure enough, above its leaf, or missing. `category_paths` are all labels of a product
that has several. A run of labels names no category: `labels` are those that it applied, and a product needs a review
that neither a person nor a label says anything of."""
SOURCES = {"label": ("correction", "label", "model"), "model": ("correction", "model", "label")}
"""Sources of a product's category, the first one that names any wins; by what is preferred."""


@dataclass(frozen=True)
class DeliveryRule:
    """A rule that decides which category is delivered of a product."""

    prefer: str
    """`label` or `model`: what wins if a product has both."""
    review_below: float
    """The probability below which an answer of the model needs a review."""
    ids: Mapping[str, str]
    """The taxonomy's id of each path that has one, by its key (`atlas_ray.schemas.path_keys`)."""
    corrected: pa.Array
    """The products that a person corrected."""
    corrections: pa.Array
    """Their category paths."""

    @classmethod
    def of(
        cls, prefer: str, review_below: float, ids: Mapping[str, str], corrections: Mapping[str, CategoryPath]
    ) -> "DeliveryRule":
        """Return the rule for corrections by product."""
        paths = pa.array([list(path) for path in corrections.values()], CATEGORY_PATH)
        return cls(prefer, review_below, ids, pa.array(corrections.keys(), pa.string()), paths)


def deliver(rows: pa.RecordBatch, rule: DeliveryRule) -> pa.Table:
    """Turn some products of a run, with the columns `READ`, into `DELIVERED`."""
    count = len(rows)
    paths = {
        "correction": rule.corrections.take(pc.index_in(rows["product_id"], rule.corrected)),
        "label": rows["true_category_path"],
        "model": rows["category_path"],
    }
    # A leaf below a label above it says more, and does not contradict it.
    level = path_lengths(paths["label"])
    begins = path_keys(path_prefixes(paths["model"], level))
    same = pc.equal(begins, path_keys(paths["label"])).fill_null(False).to_numpy(zero_copy_only=False)
    paths["label"] = _where(paths["label"], ~(same & (path_lengths(paths["model"]) > level)))
    order = SOURCES[rule.prefer]
    named = np.stack([_valid(paths[source]) for source in order])  # (3, products)
    first, nobody = named.argmax(axis=0), ~named.any(axis=0)
    path = pa.concat_arrays([paths[source] for source in order])
    path = path.take(pa.array(first * count + np.arange(count), mask=nobody))
    by_model = nobody | (first == order.index("model"))
    by_label = ~nobody & (first == order.index("label"))
    leaves = find_leaves(rows)
    probability = rows["probability"].fill_null(0).to_numpy(zero_copy_only=False)
    labels = pc.list_value_length(rows["labels"]).fill_null(0).to_numpy(zero_copy_only=False) > 0
    sure = (probability >= np.float32(rule.review_below)) & _valid(leaves.paths) & ~leaves.above | labels
    columns = {
        "product_id": rows["product_id"],
        "category_path": path,
        "category_id": _ids(path, rule.ids),
        "probability": _where(rows["probability"], by_model & ~nobody),
        "source": pa.array(order, pa.string()).take(pa.array(first, mask=nobody)),
        "needs_review": pa.array(by_model & ~sure),
        "category_paths": _where(rows["true_category_paths"], by_label),
        "labels": rows["labels"],
        **{name: rows[name] for name in OF_THE_CATALOGUE},
    }
    return pa.table(columns, schema=DELIVERED)


def _ids(paths: pa.Array, ids: Mapping[str, str]) -> pa.Array:
    """Return the taxonomy's id of each path; each different path is looked up once."""
    keys = path_keys(paths).dictionary_encode()
    found = pa.array([ids.get(key) for key in keys.dictionary.to_pylist()], pa.string())
    return found.take(keys.indices)


def _where(column: pa.Array, keep: Any) -> pa.Array:
    """Return the column, null if it is not kept."""
    return column.take(pa.array(np.arange(len(keep)), mask=~keep))


def _valid(column: pa.Array) -> Any:
    return column.is_valid().to_numpy(zero_copy_only=False)
