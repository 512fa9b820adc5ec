"""The category path of a product, from the paths that its pictures list."""

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import Array, first_of_each, list_offsets, or_null, row_at
from atlas_ray.metrics.decision import decided_levels
from atlas_ray.prediction.aggregate import ListedPaths, Means, path_nodes
from atlas_ray.runs.leaves import path_lengths, path_prefixes
from atlas_ray.schemas import CATEGORY_PATH, MEANS, PATH_KEY_SEPARATOR, path_keys
from atlas_ray.taxonomy import CategoryPath


def merge_paths(
    scored: pa.Table, owner: Array, count: int, *, top_k: int, decision_threshold: float | None = None
) -> dict[str, pa.Array]:
    """Return the paths of products, as `atlas_ray.scoring.combine.Merge`.

    Args:
        scored: The answers to pictures.
        owner: (pictures,) the number of the product of each.
        count: How many products there are.
        top_k: How many paths are kept.
        decision_threshold: With it each product's path ends at the deepest level of at least that probability.
    """
    listed, names = _listed(scored, owner, np.bincount(owner, minlength=count))
    means = listed.means()
    best, probability = means.best(count)
    none = best < 0
    nodes = path_nodes(names)
    length = (nodes[best] >= 0).sum(1)
    levels = listed.levels(nodes, best, listed.answer[: len(scored)], _own_levels(scored, nodes.shape[1]))
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
        answer=np.argsort(order)[keys.indices.to_numpy()],
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
            [paths.take(pa.array(means.answer[kept])), pa.array(means.probability[kept])],
            names=["category_path", "probability"],
        ),
        mask=pa.array(none),
    )
