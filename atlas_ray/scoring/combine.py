"""A product's pictures combined into one path, and the audit that nothing was lost.

One shuffle by product brings together a product's row, its pictures, their predictions and their
quarantine rows. The product's probability of a path is the mean over its scored pictures
(`atlas_ray.prediction.aggregate`).
"""

from typing import Any

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import Array, first_of_each, list_offsets, numbered, or_null, row_at
from atlas_ray.errors import AuditError
from atlas_ray.formats.fitted import Fitted
from atlas_ray.metrics.decision import decided_levels
from atlas_ray.prediction.aggregate import ListedPaths, Means, has_a_say, path_nodes
from atlas_ray.runs.leaves import path_lengths, path_prefixes
from atlas_ray.runtime.shuffle import CARRIED, FILTERED, IMAGE, OUTCOME, PRODUCT, QUARANTINED
from atlas_ray.schemas import CATEGORIZED, CATEGORY_PATH, MEANS, PATH_KEY_SEPARATOR, path_keys
from atlas_ray.taxonomy import CategoryPath

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
    the products that the model was fitted on, if that is known.

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
    merged = _merged(table.take(pa.array(scored)), owner[scored], count, top_k, decision_threshold)
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
            "images_carried": np.bincount(owner[scored[~dead[scored] & (kind[scored] == CARRIED)]], minlength=count),
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


def _merged(
    scored: pa.Table, owner: Array, count: int, top_k: int, decision_threshold: float | None
) -> dict[str, pa.Array]:
    """Return the combined columns of `count` products, null for those without a scored picture."""
    listed, names = _listed(scored, owner, np.bincount(owner, minlength=count))
    means = listed.means()
    best, probability = means.best(count)
    none = best < 0
    nodes = path_nodes(names)
    length = (nodes[best] >= 0).sum(1)
    levels = listed.levels(nodes, best, listed.path[: len(scored)], _own_levels(scored, nodes.shape[1]))
    decided = length
    if decision_threshold is not None:
        decided = decided_levels(levels, length, decision_threshold)
        ends = np.flatnonzero((decided < length) & (decided > 0))
        probability[ends] = levels[ends, decided[ends] - 1]
    undecided = none | (decided == 0)
    paths = pa.array(names, CATEGORY_PATH)
    totals = {field.name: np.bincount(owner, weights=scored[field.name].to_numpy(), minlength=count) for field in MEANS}
    within = np.arange(levels.shape[1]) < length[:, None]
    surest = np.flatnonzero(first_of_each(owner, -scored["probability"].to_numpy()))
    return {
        "category_path": path_prefixes(paths.take(pa.array(best, mask=undecided)), decided),
        "decided_level": pa.array(decided, mask=none),
        "image_uri": scored["image_uri"].take(or_null(row_at(owner[surest], count, surest))),
        "probability": pa.array(probability, mask=undecided),
        "level_probabilities": pa.ListArray.from_arrays(
            list_offsets(length), pa.array(levels[within]), mask=pa.array(none)
        ),
        # Where an answer ends above its leaf, that leaf is the first alternative.
        "alternatives": _alternatives(means, paths, decided < length, none, top_k),
        **{name: pa.array(total / np.maximum(listed.pictures, 1), mask=none) for name, total in totals.items()},
    }


def _listed(scored: pa.Table, owner: Array, pictures: Array) -> tuple[ListedPaths, list[CategoryPath]]:
    """Return what pictures list, first each its own path, then all alternatives; and the different paths, sorted."""
    alternatives = scored["alternatives"].combine_chunks()
    more = alternatives.flatten()
    path = pa.concat_arrays([scored["category_path"].combine_chunks(), more.field("category_path").cast(CATEGORY_PATH)])
    keys = path_keys(path).dictionary_encode()
    distinct = np.array(keys.dictionary.to_pylist(), dtype=object)
    order = np.argsort(distinct)
    listed = ListedPaths(
        picture=np.concatenate([np.arange(len(scored)), alternatives.value_parent_indices().to_numpy()]),
        path=np.argsort(order)[keys.indices.to_numpy()],
        probability=np.concatenate(
            [scored["probability"].to_numpy(), more.field("probability").to_numpy(zero_copy_only=False)]
        ).astype(np.float64),
        product=owner,
        pictures=pictures,
    )
    return listed, [tuple(key.split(PATH_KEY_SEPARATOR)) for key in distinct[order]]


def _own_levels(scored: pa.Table, depth: int) -> Array:
    """Return the probability of each prefix of each picture's own path, (pictures, depth); 0 past its end."""
    levels = scored["level_probabilities"].combine_chunks()
    own = np.zeros((len(scored), depth))
    own[np.arange(depth) < path_lengths(levels)[:, None]] = levels.flatten().to_numpy(zero_copy_only=False)
    return own


def _alternatives(means: Means, paths: pa.Array, leaf_too: Array, none: Array, top_k: int) -> pa.Array:
    """Return each product's paths below its best one, or from it on, as far as the `top_k` best go."""
    kept = ((means.place > 0) | leaf_too[means.product]) & (means.place < top_k)
    return pa.ListArray.from_arrays(
        list_offsets(np.bincount(means.product[kept], minlength=len(none))),
        pa.StructArray.from_arrays(
            [paths.take(pa.array(means.path[kept])), pa.array(means.probability[kept])],
            names=["category_path", "probability"],
        ),
        mask=pa.array(none),
    )
