"""Blocks of predictions and labels with the paths of the new taxonomy: one look-up a distinct path."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.records import ALTERNATIVE, CATEGORY_PATH, PATH_KEY_SEPARATOR, UNDETERMINED, path_keys
from atlas_ray.taxonomy import CategoryPath
from atlas_ray.taxonomy.changes import UNKNOWN, Destination

Destinations = Mapping[CategoryPath, Destination]


class _Paths:
    """A column of old paths, looked up.

    Attributes:
        there: (rows,) whether there is a path.
        new: (rows,) the position of the new path in `paths`, -1 where there is none.
        same_levels: (rows,) whether each level of the new path holds what that of the old one held.
        paths: The distinct new paths.
    """

    def __init__(self, column: pa.Array, destinations: Destinations) -> None:
        keys = path_keys(column).dictionary_encode()
        distinct = keys.dictionary.to_pylist()
        self._found = [destinations.get(tuple(key.split(PATH_KEY_SEPARATOR)), UNKNOWN) for key in distinct]
        self._found.append(UNKNOWN)  # what a row without a path points at
        self._code = keys.indices.fill_null(len(distinct)).to_numpy()
        self.there = self._code < len(distinct)
        position: dict[CategoryPath, int] = {}
        new = [-1 if one.path is None else position.setdefault(one.path, len(position)) for one in self._found]
        self.new = np.array(new)[self._code]
        self.same_levels = np.array([one.same_levels for one in self._found])[self._code]
        self.paths = pa.array([list(path) for path in position], CATEGORY_PATH)

    def undetermined(self, product_ids: pa.Array, column: pa.Array) -> pa.Table:
        """Return an `UNDETERMINED` row for each path of the column that has no certain place."""
        rows = np.flatnonzero(self.there[: len(column)] & (self.new[: len(column)] < 0))
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
        The table, the label null where its path has no certain place, and an `UNDETERMINED` row for each of those.
    """
    labels = table[column].combine_chunks().cast(CATEGORY_PATH)
    paths = _Paths(labels, destinations)
    new = paths.paths.take(pa.array(paths.new, mask=paths.new < 0))
    return _replace(table, {column: new}), paths.undetermined(table["product_id"].combine_chunks(), labels)


def migrate_predictions(table: pa.Table, destinations: Destinations, taxonomy_id: str) -> tuple[pa.Table, pa.Table]:
    """Rewrite predictions.

    Answers that lead to the same new path become one, whose probability is their sum; the likeliest is the
    prediction, the others are its alternatives. Alternatives without a certain place are left out. Where the
    predicted path itself has none, the row keeps no answer. `level_probabilities` stay where each level of the path
    holds the leaves that it held before, and are null elsewhere.

    Args:
        table: Rows of `PREDICTIONS` or `CATEGORIZED`.
        destinations: Where the products of each old path belong.
        taxonomy_id: Of the new taxonomy.

    Returns:
        The table, and an `UNDETERMINED` row for each that lost its answer.
    """
    rows = len(table)
    predicted = table["category_path"].combine_chunks().cast(CATEGORY_PATH)
    alternatives = table["alternatives"].combine_chunks()
    more = alternatives.flatten()
    # Answers: each row's own path, then its alternatives.
    row = np.concatenate([np.arange(rows), alternatives.value_parent_indices().to_numpy()])
    paths = _Paths(
        pa.concat_arrays([predicted, pc.struct_field(more, "category_path").cast(CATEGORY_PATH)]), destinations
    )
    weight = pa.concat_arrays([table["probability"].combine_chunks(), pc.struct_field(more, "probability")])
    weight = weight.fill_null(0).to_numpy().astype(np.float64)
    stays = paths.new[:rows] >= 0
    answers = np.flatnonzero((paths.new >= 0) & stays[row])
    size = max(len(paths.paths), 1)
    pairs, first, inverse = np.unique(row[answers] * size + paths.new[answers], return_index=True, return_inverse=True)
    total = np.bincount(inverse, weights=weight[answers], minlength=len(pairs))
    order = np.lexsort((first, -total, pairs // size))  # the order that they had where two are equally likely
    owner, chosen, total = pairs[order] // size, pairs[order] % size, np.minimum(total[order], 1.0)
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)  # 0 for each row's best
    best = np.full(rows, -1)
    best[owner[place == 0]] = chosen[place == 0]
    probability = np.zeros(rows)
    probability[owner[place == 0]] = total[place == 0]
    rest = place > 0
    offsets = np.concatenate([[0], np.bincount(owner[rest], minlength=rows).cumsum()]).astype(np.int32)
    listed = pa.StructArray.from_arrays(
        [paths.paths.take(pa.array(chosen[rest])), pa.array(total[rest].astype(np.float32))], fields=list(ALTERNATIVE)
    )
    answer = paths.paths.take(pa.array(best, mask=best < 0))
    same = stays & paths.same_levels[:rows] & (best == paths.new[:rows])
    migrated = _replace(
        table,
        {
            "category_path": answer,
            "probability": pa.array(probability, pa.float32(), mask=best < 0),
            "level_probabilities": _where(same, table["level_probabilities"]),
            "alternatives": pa.ListArray.from_arrays(pa.array(offsets), listed, mask=pa.array(best < 0)),
            "outside_probability": _where(stays, table["outside_probability"]),
            "taxonomy_id": pa.repeat(pa.scalar(taxonomy_id), rows),
            **({"decided_level": pc.list_value_length(answer)} if "decided_level" in table.column_names else {}),
        },
    )
    return migrated, paths.undetermined(table["product_id"].combine_chunks(), predicted)


def _where(keep: Any, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column, null where it is not kept."""
    return column.take(pa.array(np.arange(len(keep)), mask=~keep))


def _replace(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, column in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, column.cast(field.type))
    return table
