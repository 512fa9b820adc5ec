from typing import Any

import pyarrow as pa
import pytest

from atlas_ray.runs.leaves import find_leaves, path_prefixes
from atlas_ray.schemas import CATEGORIZED, PREDICTIONS

A, B, C = ["M", "S", "x"], ["M", "S", "y"], ["W", "D"]


def product(path: list[str] | None, probability: float | None, level: int | None, *others: Any) -> dict[str, Any]:
    listed = [{"category_path": other, "probability": p} for other, p in others]
    return {"category_path": path, "probability": probability, "decided_level": level, "alternatives": listed}


ROWS = [
    product(["M", "S"], 0.9, 2, (A, 0.5), (B, 0.4)),
    product(["M"], 0.95, 1) | {"level_probabilities": [0.95, 0.9, 0.5]},  # an older migration lost its leaf
    product(C, 0.75, 2, (A, 0.25)),
    product(None, None, 0, (B, 0.25), (C, 0.125)),
    product(None, None, 0) | {"level_probabilities": [0.5, 0.25]},
    product(None, None, None) | {"alternatives": None},
    product(B, 0.5, None, (A, 0.25)),  # of a run before there were target precisions
    product(["W"], 0.95, 1) | {"level_probabilities": [0.95, 0.9]},  # the last: no row after it to read from
]
LEAVES = [A, None, C, B, None, None, B, None]


@pytest.mark.parametrize("start", range(len(ROWS)))
def test_each_row_has_its_own_leaf(start: int) -> None:
    table = pa.Table.from_pylist(ROWS, schema=CATEGORIZED)
    found = find_leaves(table.slice(start))
    assert found.paths.to_pylist() == LEAVES[start:]
    assert found.probability.to_pylist() == [0.5, None, 0.75, 0.25, None, None, 0.5, None][start:]
    assert found.above.tolist() == [True, False, False, True, False, False, False, False][start:]
    (batch,) = table.slice(start).to_batches()
    assert find_leaves(batch).paths.equals(found.paths)


def test_levels_that_a_migration_made_null_do_not_hide_a_leaf() -> None:
    table = pa.Table.from_pylist(ROWS[:1], schema=CATEGORIZED)
    assert table["level_probabilities"].null_count == 1
    assert find_leaves(table).paths.to_pylist() == [A]


def test_predictions_of_pictures_are_leaves() -> None:
    table = pa.Table.from_pylist([{"category_path": A, "probability": 0.5, "alternatives": []}], schema=PREDICTIONS)
    assert find_leaves(table).paths.to_pylist() == [A]
    assert len(find_leaves(PREDICTIONS.empty_table()).paths) == 0


def test_prefixes() -> None:
    paths = pa.array([A, None, C, C])
    assert path_prefixes(paths, pa.array([1, 2, 0, 5]).to_numpy()).to_pylist() == [["M"], None, [], C]
