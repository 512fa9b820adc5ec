"""A product's pictures combined into one answer, and the audit that nothing was lost.

One shuffle by product brings together a product's row, its pictures, their predictions and their
quarantine rows. The product's probability of a path or label is the mean over its scored pictures
(`atlas_ray.prediction.aggregate`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import Array, first_of_each, numbered, or_null, row_at
from atlas_ray.errors import AuditError
from atlas_ray.formats.fitted import Fitted
from atlas_ray.prediction.aggregate import has_a_say
from atlas_ray.runtime.shuffle import CARRIED, FILTERED, IMAGE, OUTCOME, PRODUCT, QUARANTINED
from atlas_ray.schemas import CATEGORIZED, CATEGORY_PATH, LABELS, MEANS
from atlas_ray.scoring.outcomes import is_spared

REPEATED = ("store", "price", "brand", "sku", "availability", "attributes")
"""What the catalogue says of a product and the run's products table repeats under the same name."""
OF_PRODUCTS = ("category_path", "category_paths", "split", *REPEATED)
"""What is read of the catalogue's products table."""
JOINED = pa.schema(
    [
        ("kind", pa.int8()),
        ("product_id", pa.string()),
        ("image_id", pa.int64()),
        ("split", pa.string()),
        *(CATEGORIZED.field(name) for name in ("category_path", "probability", "level_probabilities", "alternatives")),
        *MEANS,
        *LABELS,
        ("zoomed_probability", pa.float32()),
        ("picture_error", pa.string()),
        ("image_uri", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("category_paths", pa.list_(CATEGORY_PATH)),
        *(CATEGORIZED.field(name) for name in REPEATED),
    ]
)
"""What is shuffled: rows of six tables in one shape."""
CASCADED = JOINED.append(pa.field("sha256", pa.string()))
"""The same for a run with a cascade: without its hash a picture was not read."""
Merge = Callable[[pa.Table, Array, int], dict[str, pa.Array]]
"""A function of the answers to pictures, the number of the product of each, and how many products there are. It returns
the products' answers: columns of `CATEGORIZED`, null for products without a picture; a column that it leaves out is
null."""


def combine(
    table: pa.Table,
    merge: Merge,
    *,
    model_id: str,
    taxonomy_id: str,
    zoom_threshold: float | None = None,
    fitted: Fitted | None = None,
) -> pa.Table:
    """Turn all rows of some products into `CATEGORIZED`, one row a product.

    Args:
        table: Rows of `JOINED`, or of `CASCADED`.
        merge: How the answers to a product's pictures become one.
        model_id: The model that answered.
        taxonomy_id: The taxonomy of its answers.
        zoom_threshold: The least probability of a zoomed picture, if a zoom filter ran.
        fitted: The products that the model was fitted on, if that is known.

    Raises:
        AuditError: if a picture is not scored, carried, filtered or quarantined, is more than one of
            them, or stands more often than in the catalogue.
    """
    table = table.sort_by([("product_id", "ascending"), ("kind", "ascending"), ("image_id", "ascending")])
    table = table.combine_chunks()
    products, owner = numbered(table["product_id"])
    kind = table["kind"].to_numpy()
    image_id = table["image_id"].fill_null(0).to_numpy()
    count = len(products)
    rows = _audited(owner, kind, image_id, products)
    answered = (OUTCOME, CARRIED)
    scored, left_out, failed = (rows[np.isin(kind[rows], what)] for what in (answered, FILTERED, QUARANTINED))
    # A picture that could not be had, and was answered about by its texts, is neither zoomed nor normal.
    zoomed = table["zoomed_probability"].cast(pa.float64()).fill_null(np.inf).to_numpy()
    scored, dropped, only_zoomed = _without_zoomed(scored, owner, zoomed, zoom_threshold, count)
    left_out = np.concatenate([left_out, dropped])
    dead = table["picture_error"].is_valid().to_numpy()
    not_seen = scored[dead[scored]]
    scored = scored[has_a_say(owner[scored], ~dead[scored])]
    listed = np.flatnonzero(kind == PRODUCT)
    own = or_null(row_at(owner[listed], count, listed))
    merged = merge(table.take(pa.array(scored)), owner[scored], count)
    unread = pa.nulls(count, pa.int32())
    if "sha256" in table.column_names:
        spared = is_spared(table).fill_null(False).to_numpy()
        unread = np.bincount(owner[scored[spared[scored]]], minlength=count)
    pictures = np.flatnonzero(kind == IMAGE)
    sides = [table[name].take(pa.array(pictures)).fill_null(0).to_numpy() for name in ("width", "height")]
    size = np.zeros(count, np.int32)
    np.maximum.at(size, owner[pictures], np.minimum(*sides))
    least = np.full(count, np.inf)
    np.minimum.at(least, owner[scored], zoomed[scored])
    combined = pa.table(
        {
            **{field.name: pa.nulls(count, field.type) for field in CATEGORIZED},
            "product_id": products,
            **merged,
            "images_scored": np.bincount(owner[scored[~dead[scored]]], minlength=count),
            "images_carried": np.bincount(owner[scored[~dead[scored] & (kind[scored] == CARRIED)]], minlength=count),
            "images_unread": unread,
            "images_filtered": np.bincount(owner[left_out], minlength=count),
            "images_quarantined": np.bincount(owner[np.concatenate([failed, not_seen])], minlength=count),
            "only_zoomed": only_zoomed,
            "zoomed_probability": pa.array(least, mask=~np.isfinite(least)),
            "image_size_px": pa.array(size, mask=size == 0),
            **{name: table[name].take(own) for name in REPEATED},
            "true_category_path": table["category_path"].take(own),
            "true_category_paths": table["category_paths"].take(own),
            "split": table["split"].take(own),
            "model_id": pa.repeat(pa.scalar(model_id), count),
            "taxonomy_id": pa.repeat(pa.scalar(taxonomy_id), count),
            "fitted": pa.nulls(count, pa.bool_()) if fitted is None else fitted.uses(products.to_pylist()) > 0,
        }
    )
    return combined.select(CATEGORIZED.names).cast(CATEGORIZED)


def _without_zoomed(scored: Any, owner: Any, zoomed: Any, threshold: float | None, count: int) -> tuple[Any, Any, Any]:
    """Leave out zoomed pictures of products that have others, and all but the least zoomed of those that have not.

    A stream sees a product's pictures in several blocks if they stand far from one another; each block scored
    its least zoomed one if it had no other.

    Returns:
        The rows that stay, the rows that go, and (count,) whether a product has only zoomed ones.
    """
    if threshold is None:
        return scored, scored[:0], np.zeros(count, dtype=bool)
    seen = np.isfinite(zoomed[scored])
    bad = seen & (zoomed[scored] >= threshold)
    has_normal = np.bincount(owner[scored[seen & ~bad]], minlength=count) > 0
    least = first_of_each(owner[scored], zoomed[scored])
    stays = ~bad | (least & ~has_normal[owner[scored]])
    only_zoomed = (np.bincount(owner[scored[stays & seen]], minlength=count) > 0) & ~has_normal
    return scored[stays], scored[~stays], only_zoomed


def _audited(owner: Any, kind: Any, image_id: Any, products: pa.Array) -> Any:
    """Check that pictures and outcomes balance; return the rows of each picture's outcome, once."""
    pictures = np.flatnonzero(kind == IMAGE)
    outcomes = np.flatnonzero(kind >= OUTCOME)
    # A picture is (product, id); a catalogue may hold the same one twice, then so may the outcome.
    wanted, wanted_count = np.unique(np.stack([owner[pictures], image_id[pictures]]), axis=1, return_counts=True)
    found, first, found_count = np.unique(
        np.stack([owner[outcomes], image_id[outcomes]]),
        axis=1,
        return_index=True,
        return_counts=True,
    )
    if wanted.shape != found.shape or (wanted != found).any() or (found_count > wanted_count).any():
        expected = {(int(a), int(b)): int(n) for a, b, n in zip(*wanted, wanted_count, strict=True)}
        got = {(int(a), int(b)): int(n) for a, b, n in zip(*found, found_count, strict=True)}
        wrong = [key for key in expected.keys() | got.keys() if got.get(key, 0) != expected.get(key, 0)]
        product, image = min(wrong)
        raise AuditError(
            f"{len(wrong)} pictures do not balance; the first: image_id {image} of product "
            f"{products[product].as_py()!r} stands {expected.get((product, image), 0)} times in the "
            f"catalogue and {got.get((product, image), 0)} times in the output"
        )
    return outcomes[first]
