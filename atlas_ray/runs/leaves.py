"""The best leaf of scored products, even if a target precision made the answer end above it."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, Booleans, list_offsets
from atlas_ray.schemas import CATEGORIZED, CATEGORY_PATH, path_keys


@dataclass(frozen=True)
class Leaves:
    """The best leaf of each of some products."""

    paths: pa.Array
    """The best leaf's path; null without one."""
    probability: pa.Array
    """The probability of the leaf, which is less than that of an answer above it."""
    above: Array
    """Whether the answer ends above the leaf or there is none, so that the leaf is the first alternative."""


def find_leaves(rows: pa.RecordBatch | pa.Table) -> Leaves:
    """Return each row's best leaf.

    Args:
        rows: Of `CATEGORIZED` or `PREDICTIONS`; a column that they lack counts as null.
    """
    answers, decided, others = (_column(rows, name) for name in ("category_path", "decided_level", "alternatives"))
    listed, count = others.flatten(), path_lengths(others)
    first = listed.take(pa.array(count.cumsum() - count, pa.int64(), mask=count == 0))
    path = pc.struct_field(first, "category_path").cast(CATEGORY_PATH)
    level = decided.fill_null(-1).to_numpy()
    # A leaf has no path below it: an alternative there says that the answer is none. Levels do not: where the
    # run was migrated they may be null.
    head = path_keys(path_prefixes(path, np.maximum(level, 0)))
    below = pc.equal(head, path_keys(answers).fill_null("")).fill_null(False).to_numpy(zero_copy_only=False)
    above = below & (level >= 0) & (level < path_lengths(path))
    unknown = ~above & (level >= 0) & (level < path_lengths(_column(rows, "level_probabilities")))
    at = pa.array(np.arange(len(rows)) + len(rows) * above, mask=unknown)
    probability = pa.concat_arrays([_column(rows, "probability"), pc.struct_field(first, "probability")])
    return Leaves(pa.concat_arrays([answers.cast(CATEGORY_PATH), path]).take(at), probability.take(at), above)


def judged_paths(paths: pa.Array, labels: pa.Array, is_above: Booleans) -> pa.Array:
    """Return answers as far as their labels can judge them: to the level of a label above the leaf, else whole.

    Args:
        paths: (rows,) category paths of leaves; null stays null.
        labels: (rows,) the labels.
        is_above: (rows,) whether the label is above the leaf.
    """
    return (
        path_prefixes(paths, np.where(is_above, path_lengths(labels), path_lengths(paths))) if is_above.any() else paths
    )


def path_lengths(lists: pa.Array) -> Array:
    """Return how long lists are, (rows,); 0 if there is none."""
    found: Array = pc.list_value_length(lists).fill_null(0).to_numpy()
    return found


def path_prefixes(paths: pa.Array, levels: Array) -> pa.Array:
    """Return the first names of category paths; null stays null.

    Args:
        paths: (rows,) category paths.
        levels: (rows,) how many names.
    """
    lengths = path_lengths(paths)
    levels = np.minimum(levels, lengths)
    place = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    names = paths.flatten().filter(pa.array(place < np.repeat(levels, lengths)))
    return pa.ListArray.from_arrays(list_offsets(levels), names, mask=paths.is_null())


def _column(rows: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    if name not in rows.schema.names:
        return pa.nulls(len(rows), CATEGORIZED.field(name).type)
    column = rows[name]
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
