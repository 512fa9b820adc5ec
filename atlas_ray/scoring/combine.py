"""A product's pictures combined into one path, and the audit that nothing was lost.

One shuffle by product brings together a product's row, its pictures, their predictions and their
quarantine rows. The product's probability of a path is the mean over its scored pictures (the mean
rule of late fusion, Wirojwatanakul and Wangperawong 2019); a path that a picture does not list
among its alternatives counts as 0 there. A picture that could not be had, and was answered about by the
product's texts, has no say beside one that was seen, and without one the texts have a single say.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.errors import AuditError
from atlas_ray.formats.fitted import Fitted
from atlas_ray.metrics.decision import decided_levels
from atlas_ray.schemas import CATEGORIZED, CATEGORY_PATH, MEANS, PATH_KEY_SEPARATOR, path_keys

PRODUCT, IMAGE, PREDICTION, FILTERED, QUARANTINED = range(5)

JOINED = pa.schema(
    [
        ("kind", pa.int8()),
        ("product_id", pa.string()),
        ("image_id", pa.int64()),
        ("split", pa.string()),
        *(CATEGORIZED.field(name) for name in ("category_path", "probability", "level_probabilities", "alternatives")),
        *MEANS,
        ("zoomed_probability", pa.float32()),
        ("picture_error", pa.string()),
        ("image_uri", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("store", pa.string()),
        ("price", pa.float64()),
    ]
)
"""What is shuffled: rows of five tables in one shape."""


def combine(
    table: pa.Table,
    model_id: str,
    taxonomy_id: str,
    top_k: int,
    zoom_threshold: float | None = None,
    decision_threshold: float | None = None,
    fitted: Fitted | None = None,
) -> pa.Table:
    """Turn all rows of some products into `CATEGORIZED`, one row a product.

    With a `decision_threshold` each product's path ends at the deepest level of at least that probability. `fitted` are
    the products that the model was fitted on, where that is known.

    Raises:
        AuditError: where a picture is not scored, filtered or quarantined, is more than one of
            them, or stands more often than in the catalogue.
    """
    table = table.sort_by([("product_id", "ascending"), ("kind", "ascending"), ("image_id", "ascending")])
    table = table.combine_chunks()
    products = pc.unique(table["product_id"])
    owner = pc.index_in(table["product_id"], products).to_numpy()
    kind = table["kind"].to_numpy()
    image_id = table["image_id"].fill_null(0).to_numpy()
    count = len(products)
    rows = _audited(owner, kind, image_id, products)
    scored, left_out, failed = (rows[kind[rows] == what] for what in (PREDICTION, FILTERED, QUARANTINED))
    # A picture that could not be had, and was answered about by its texts, is neither zoomed nor normal.
    zoomed = table["zoomed_probability"].cast(pa.float64()).fill_null(np.inf).to_numpy()
    scored, dropped, only_zoomed = _without_zoomed(scored, owner, zoomed, zoom_threshold, count)
    left_out = np.concatenate([left_out, dropped])
    dead = table["picture_error"].is_valid().to_numpy()
    not_seen = scored[dead[scored]]
    scored = _without_unseen(scored, owner, dead, count)
    per_product = np.bincount(owner[scored], minlength=count)
    listed = np.flatnonzero(kind == PRODUCT)
    at = np.full(count, -1)
    at[owner[listed]] = listed
    own = pa.array(at, mask=at < 0)
    merged = _merged(table.take(pa.array(scored)), owner[scored], per_product, top_k, decision_threshold)
    pictures = np.flatnonzero(kind == IMAGE)
    sides = [table[name].take(pa.array(pictures)).fill_null(0).to_numpy() for name in ("width", "height")]
    size = np.zeros(count, np.int32)
    np.maximum.at(size, owner[pictures], np.minimum(*sides))
    least = np.full(count, np.inf)
    np.minimum.at(least, owner[scored], zoomed[scored])
    combined = pa.table(
        {
            "product_id": products,
            **merged,
            "images_scored": np.bincount(owner[scored[~dead[scored]]], minlength=count),
            "images_filtered": np.bincount(owner[left_out], minlength=count),
            "images_quarantined": np.bincount(owner[np.concatenate([failed, not_seen])], minlength=count),
            "only_zoomed": only_zoomed,
            "zoomed_probability": pa.array(least, mask=~np.isfinite(least)),
            "image_size_px": pa.array(size, mask=size == 0),
            "store": table["store"].take(own),
            "price": table["price"].take(own),
            "true_category_path": table["category_path"].take(own),
            "split": table["split"].take(own),
            "model_id": pa.repeat(pa.scalar(model_id), count),
            "taxonomy_id": pa.repeat(pa.scalar(taxonomy_id), count),
            "fitted": pa.nulls(count, pa.bool_()) if fitted is None else fitted.uses(products.to_pylist()) > 0,
        }
    )
    return combined.select(CATEGORIZED.names).cast(CATEGORIZED)


def _without_zoomed(scored: Any, owner: Any, zoomed: Any, threshold: float | None, count: int) -> tuple[Any, Any, Any]:
    """Leave out zoomed pictures of products that have others, and all but the least zoomed of those that have not.

    A stream sees a product's pictures in several blocks where they stand apart; each block scored
    its least zoomed one if it had no other.

    Returns:
        The rows that stay, the rows that go, and (count,) whether a product has only zoomed ones.
    """
    if threshold is None:
        return scored, scored[:0], np.zeros(count, dtype=bool)
    seen = np.isfinite(zoomed[scored])
    bad = seen & (zoomed[scored] >= threshold)
    has_normal = np.bincount(owner[scored[seen & ~bad]], minlength=count) > 0
    order = np.lexsort((scored, zoomed[scored], owner[scored]))
    _, first = np.unique(owner[scored][order], return_index=True)
    least = np.zeros(len(scored), dtype=bool)
    least[order[first]] = True
    stays = ~bad | (least & ~has_normal[owner[scored]])
    only_zoomed = (np.bincount(owner[scored[stays & seen]], minlength=count) > 0) & ~has_normal
    return scored[stays], scored[~stays], only_zoomed


def _without_unseen(scored: Any, owner: Any, dead: Any, count: int) -> Any:
    """Leave out what goes by the texts alone of products with a picture that was seen; of others all but one."""
    has_seen = np.bincount(owner[scored[~dead[scored]]], minlength=count) > 0
    unseen = scored[dead[scored] & ~has_seen[owner[scored]]]
    _, first = np.unique(owner[unseen], return_index=True)
    return np.sort(np.concatenate([scored[~dead[scored]], unseen[first]]))


def _audited(owner: Any, kind: Any, image_id: Any, products: pa.Array) -> Any:
    """Check that pictures and outcomes balance; return the rows of each picture's outcome, once."""
    pictures = np.flatnonzero(kind == IMAGE)
    outcomes = np.flatnonzero(kind >= PREDICTION)
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


def _merged(
    scored: pa.Table, owner: Any, per_product: Any, top_k: int, decision_threshold: float | None
) -> dict[str, Any]:
    """Return the combined columns, null for products without a scored picture."""
    count = len(per_product)
    rows = len(scored)
    alternatives = scored["alternatives"].combine_chunks()
    more = alternatives.flatten()
    parent = alternatives.value_parent_indices().to_numpy()
    # Candidates: each picture's own path, then its alternatives.
    picture = np.concatenate([np.arange(rows), parent])
    path = pa.concat_arrays([scored["category_path"].combine_chunks(), more.field("category_path").cast(CATEGORY_PATH)])
    own = scored["probability"].to_numpy()
    weight = np.concatenate([own, more.field("probability").to_numpy(zero_copy_only=False)]).astype(np.float64)
    keys = path_keys(path).dictionary_encode()
    key = keys.indices.to_numpy()
    names = keys.dictionary.to_pylist()
    # Sum over the pictures of a product: (product, path) pairs, best first, ties by name.
    rank = np.argsort(np.argsort(np.array(names, dtype=object))) if names else np.zeros(0, np.int64)
    pair = owner[picture] * max(len(names), 1) + rank[key]
    pairs, inverse = np.unique(pair, return_inverse=True)
    total = np.bincount(inverse, weights=weight, minlength=len(pairs))
    product = pairs // max(len(names), 1)
    mean = total / np.maximum(per_product[product], 1)
    order = np.lexsort((pairs, -mean, product))
    product, mean, chosen = product[order], mean[order], (pairs % max(len(names), 1))[order]
    place = np.arange(len(product)) - np.searchsorted(product, product)  # 0 for each product's best
    by_rank = np.empty(len(names), dtype=np.int64)
    by_rank[rank] = np.arange(len(names))
    paths = pa.array([name.split(PATH_KEY_SEPARATOR) for name in names], CATEGORY_PATH)
    best = np.full(count, -1)
    best[product[place == 0]] = by_rank[chosen[place == 0]]
    probability = np.zeros(count)
    probability[product[place == 0]] = mean[place == 0]
    none = best < 0
    levels, length = _levels(
        scored["level_probabilities"].combine_chunks(), names, key, picture, weight, owner, best, per_product
    )
    within = np.arange(levels.shape[1]) < length[:, None]
    decided = length
    if decision_threshold is not None:
        decided = decided_levels(levels, length, decision_threshold)
        ends = np.flatnonzero((decided < length) & (decided > 0))
        probability[ends] = levels[ends, decided[ends] - 1]
    kept = np.arange(levels.shape[1]) < decided[:, None]
    undecided = none | (decided == 0)
    # Where an answer ends above its leaf, that leaf is the first alternative.
    rest = ((place > 0) | (decided < length)[product]) & (place < top_k)
    totals = {field.name: np.bincount(owner, weights=scored[field.name].to_numpy(), minlength=count) for field in MEANS}
    leaf_paths = paths.take(pa.array(best, mask=none))
    surest = np.lexsort((-own, owner))
    shown = np.full(count, -1)
    shown[owner[surest][::-1]] = surest[::-1]
    return {
        "category_path": pa.ListArray.from_arrays(
            _offsets(decided), leaf_paths.flatten().filter(pa.array(kept[within])), mask=pa.array(undecided)
        ),
        "decided_level": pa.array(decided, mask=none),
        "image_uri": scored["image_uri"].take(pa.array(shown, mask=none)),
        "probability": pa.array(probability, mask=undecided),
        "level_probabilities": pa.ListArray.from_arrays(
            _offsets(length), pa.array(levels[within]), mask=pa.array(none)
        ),
        "alternatives": pa.ListArray.from_arrays(
            _offsets(np.bincount(product[rest], minlength=count)),
            pa.StructArray.from_arrays(
                [paths.take(pa.array(by_rank[chosen[rest]])), pa.array(mean[rest])],
                names=["category_path", "probability"],
            ),
            mask=pa.array(none),
        ),
        **{name: pa.array(total / np.maximum(per_product, 1), mask=none) for name, total in totals.items()},
    }


def _offsets(lengths: Any) -> pa.Array:
    return pa.array(np.concatenate([[0], lengths.cumsum()]).astype(np.int32))


def _levels(
    levels: pa.ListArray,
    names: list[str],
    key: Any,
    picture: Any,
    weight: Any,
    owner: Any,
    best: Any,
    per_product: Any,
) -> tuple[Any, Any]:
    """Return the probability of each prefix of the products' paths, (products, depth), and the paths' lengths.

    For a picture whose own path shares the prefix it is the picture's own; for another, the sum of
    its listed paths that share it.
    """
    parts = [name.split(PATH_KEY_SEPARATOR) for name in names]
    depth = max((len(part) for part in parts), default=0)
    code: dict[str, int] = {}
    table = np.full((len(parts) + 1, depth), -1)  # the last row stands for no path
    for row, part in enumerate(parts):
        table[row, : len(part)] = [code.setdefault(name, len(code)) for name in part]
    count, rows = len(per_product), len(owner)
    own = np.zeros((rows, depth))
    lengths = levels.value_lengths().to_numpy(zero_copy_only=False)
    own[np.arange(depth) < lengths[:, None]] = levels.flatten().to_numpy(zero_copy_only=False)
    target = table[best]  # (products, depth)
    mean = np.zeros((count, depth))
    same = np.ones(len(key), dtype=bool)
    for level in range(depth):
        same = same & (table[key, level] == target[owner[picture], level])
        shared = np.bincount(picture, weights=weight * same, minlength=rows)
        shared = np.where(same[:rows], own[:, level], shared)  # the first rows are the pictures' own
        mean[:, level] = np.bincount(owner, weights=shared, minlength=count) / np.maximum(per_product, 1)
    return mean, (target >= 0).sum(1)
