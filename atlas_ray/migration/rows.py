"""The migration of blocks of predictions and labels to the new taxonomy: one look-up for each distinct path."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, list_offsets, or_null
from atlas_ray.prediction.aggregate import Means
from atlas_ray.runs.leaves import find_leaves, path_lengths, path_prefixes
from atlas_ray.schemas import ALTERNATIVE, CATEGORY_PATH, MEANS, PATH_KEY_SEPARATOR, UNDETERMINED, path_keys
from atlas_ray.taxonomy import CategoryPath
from atlas_ray.taxonomy.changes import UNKNOWN, Destination

Destinations = Mapping[CategoryPath, Destination]


class _Paths:
    """A column of old paths, looked up.

    Attributes:
        new: (rows,) the position of the new path in `paths`, -1 if there is none.
        same_levels: (rows,) whether each level of the new path holds what that of the old one held.
        paths: The distinct new paths.
    """

    def __init__(self, column: pa.Array, destinations: Destinations) -> None:
        keys = path_keys(column).dictionary_encode()
        distinct = keys.dictionary.to_pylist()
        self._found = [destinations.get(tuple(key.split(PATH_KEY_SEPARATOR)), UNKNOWN) for key in distinct]
        self._found.append(UNKNOWN)  # what a row without a path points at
        self._code = keys.indices.fill_null(len(distinct)).to_numpy()
        position: dict[CategoryPath, int] = {}
        new = [-1 if one.path is None else position.setdefault(one.path, len(position)) for one in self._found]
        self.new = np.array(new)[self._code]
        self.same_levels = np.array([one.same_levels for one in self._found])[self._code]
        self.paths = pa.array([list(path) for path in position], CATEGORY_PATH)

    def at(self, position: Array) -> pa.Array:
        """Return the new paths at positions, null for -1."""
        return self.paths.take(or_null(position))

    def ancestors(self, level: Array) -> Array:
        """Return how many names of the new path hold what that many of the old one held; 0 if none do.

        Args:
            level: (some,) above the leaf, of each of the first rows.
        """
        depth = max(level.max(initial=0), *(len(destination.ancestors) for destination in self._found))
        table = np.zeros((len(self._found), depth + 1), np.int64)
        for row, destination in enumerate(self._found):
            table[row, 1 : len(destination.ancestors) + 1] = destination.ancestors
        found: Array = table[self._code[: len(level)], level]
        return found

    def undetermined(self, rows: Array, product_ids: pa.Array, column: pa.Array) -> pa.Table:
        """Return an `UNDETERMINED` row for each of some rows, whose paths have no certain place."""
        code = pa.array(self._code[rows])
        reasons = pa.array([one.reason for one in self._found], pa.string())
        candidates = [[list(path) for path in one.candidates] for one in self._found]
        return pa.table(
            [
                product_ids.take(pa.array(rows)),
                column.take(pa.array(rows)),
                reasons.take(code),
                pa.array(candidates, UNDETERMINED.field("candidates").type).take(code),
            ],
            schema=UNDETERMINED,
        )


def migrate_labels(table: pa.Table, column: str, destinations: Destinations) -> tuple[pa.Table, pa.Table]:
    """Rewrite a column of labels.

    Args:
        table: Products, with `product_id`.
        column: Its column of category paths.
        destinations: Where the products of each old path belong.

    Returns:
        The table, the label null if its path has no certain place, and an `UNDETERMINED` row for each of those.
    """
    labels = table[column].combine_chunks().cast(CATEGORY_PATH)
    paths = _Paths(labels, destinations)
    lost = np.flatnonzero(_valid(labels) & (paths.new < 0))
    undetermined = paths.undetermined(lost, table["product_id"].combine_chunks(), labels)
    return _replace(table, {column: paths.at(paths.new)}), undetermined


def migrate_predictions(table: pa.Table, destinations: Destinations, taxonomy_id: str) -> tuple[pa.Table, pa.Table]:
    """Rewrite predictions.

    What is rewritten are leaves, a row's best one and its alternatives. Those that lead to the same new path become
    one, whose probability is their sum; the likeliest is the prediction, the others are its alternatives.
    Alternatives without a certain place are left out. `level_probabilities` stay if each level of the path holds
    the leaves that it held before, and are null elsewhere.

    An answer that ends above its leaf becomes the node above the new leaf that holds what it held, and keeps its
    probability; a product that was undecided stays so. Both keep their leaf as the first alternative.

    Where the best leaf has no certain place, or what was answered above it is no such node, the row keeps no answer.

    Args:
        table: Rows of `PREDICTIONS` or `CATEGORIZED`.
        destinations: Where the products of each old path belong.
        taxonomy_id: Of the new taxonomy.

    Returns:
        The table, and an `UNDETERMINED` row for each that lost its answer.
    """
    size = len(table)
    product_ids, predicted = (table[name].combine_chunks() for name in ("product_id", "category_path"))
    old = find_leaves(table)
    alternatives = table["alternatives"].combine_chunks()
    more = alternatives.flatten()
    # Answers: each row's leaf, then its alternatives; a leaf that is the first of them counts once.
    parent = alternatives.value_parent_indices().to_numpy()
    row = np.concatenate([np.arange(size), parent])
    again = np.concatenate([np.zeros(size, bool), old.above[parent] & (np.diff(parent, prepend=-1) > 0)])
    listed = pc.struct_field(more, "category_path").cast(CATEGORY_PATH)
    paths = _Paths(pa.concat_arrays([old.paths, listed]), destinations)
    weight = pa.concat_arrays([old.probability, pc.struct_field(more, "probability")]).fill_null(0).to_numpy()
    moved = paths.new[:size]
    certain = moved >= 0
    answers = np.flatnonzero((paths.new >= 0) & certain[row] & ~again)
    ranked = _added_up(row[answers], paths.new[answers], weight[answers])
    best, probability = ranked.best(size)

    leaf = paths.at(best)
    level = np.where(old.above, path_lengths(predicted), 0)
    names = np.where(old.above, paths.ancestors(level), path_lengths(leaf))
    answer = path_prefixes(leaf, names)
    # A leaf that gained others may overtake the one that the answer was above, and stand elsewhere.
    beside = ~_same(answer, path_prefixes(paths.at(moved), names))
    regrouped = certain & (level > 0) & ((names == 0) | beside)
    stays = certain & ~regrouped
    answered = stays & (names > 0)
    sure = np.where(old.above, table["probability"].fill_null(0).to_numpy(), probability)
    rest = (ranked.place > 0) | old.above[ranked.product]
    others = _alternatives(ranked.product[rest], paths.at(ranked.answer[rest]), ranked.probability[rest], size)
    migrated = _replace(
        table,
        {
            "category_path": _where(answered, answer),
            "probability": pa.array(sure, mask=~answered),
            "level_probabilities": _where(
                stays & paths.same_levels[:size] & (best == moved), table["level_probabilities"]
            ),
            "alternatives": _where(stays, others),
            **{field.name: _where(stays, table[field.name]) for field in MEANS},
            "taxonomy_id": pa.repeat(pa.scalar(taxonomy_id), size),
            **({"decided_level": pa.array(names, mask=~stays)} if "decided_level" in table.column_names else {}),
        },
    )
    asked = pc.if_else(old.paths.is_valid(), old.paths, predicted.cast(CATEGORY_PATH))
    lost = paths.undetermined(np.flatnonzero(_valid(asked) & ~certain), product_ids, asked)
    candidates = pa.ListArray.from_arrays(others.offsets, others.values.field("category_path"))
    columns = [product_ids, predicted, pa.repeat(pa.scalar("regrouped"), size), candidates]
    return migrated, pa.concat_tables([lost, pa.table(columns, schema=UNDETERMINED).filter(pa.array(regrouped))])


def _added_up(row: Array, path: Array, weight: Array) -> Means:
    """Return the different paths of each row with the sums of their weights; equal ones keep their order."""
    size = int(path.max(initial=0)) + 1
    pairs, first, inverse = np.unique(row * size + path, return_index=True, return_inverse=True)
    total = np.bincount(inverse, weights=weight, minlength=len(pairs))
    order = np.lexsort((first, -total, pairs // size))
    return Means(pairs[order] // size, pairs[order] % size, np.minimum(total[order], 1.0))


def _alternatives(owner: Array, paths: pa.Array, probability: Array, size: int) -> pa.Array:
    """Return lists of alternatives, (size,), of paths that come row by row."""
    listed = pa.StructArray.from_arrays([paths, pa.array(probability.astype(np.float32))], fields=list(ALTERNATIVE))
    return pa.ListArray.from_arrays(list_offsets(np.bincount(owner, minlength=size)), listed)


def _same(one: pa.Array, other: pa.Array) -> Array:
    """Return where two columns of paths hold the same one, (rows,) bool; nothing is the same as no path."""
    found: Array = pc.equal(path_keys(one), path_keys(other)).fill_null(False).to_numpy(zero_copy_only=False)
    return found


def _valid(column: pa.Array) -> Array:
    found: Array = column.is_valid().to_numpy(zero_copy_only=False)
    return found


def _where(keep: Array, column: Any) -> Any:
    """Return the column, null if it is not kept."""
    return column.take(pa.array(np.arange(len(keep)), mask=~keep))


def _replace(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, column in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, column.cast(field.type))
    return table
