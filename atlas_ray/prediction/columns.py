"""The columns of the predictions table that an answer fills, each made from the result of a search.

Dimensions: pictures; K paths, the number that a search keeps for a picture.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from atlas_ray.arrays import list_offsets
from atlas_ray.decoding.posterior import Posterior
from atlas_ray.decoding.scope import Scope
from atlas_ray.schemas import ALTERNATIVE, PREDICTIONS


class Answers:
    """The results of searches in a scope, as arrays of the fields of `Posterior`."""

    def __init__(self, scope: Scope, found: Sequence[Posterior]) -> None:
        def joined(name: str) -> NDArray[Any]:
            return torch.cat([getattr(part, name) for part in found]).cpu().numpy()

        self.scope = scope
        self.leaf = joined("leaf")
        """(pictures, K)"""
        self.probability = joined("probability")
        """(pictures, K)"""
        self.level_probability = joined("level_probability")
        """(pictures, depth)"""
        self.outside = joined("outside")
        """(pictures,)"""
        self.missing = ~joined("finite")
        """(pictures,) bool: whether a number of the answer is NaN or infinite, so that its columns are null."""
        self.others = (self.leaf[:, 1:] >= 0) & ~self.missing[:, None]
        """(pictures, K - 1) bool: whether there is a path besides the best one."""

    def numbers(self, values: NDArray[Any]) -> pa.Array:
        """Return a column of numbers, (pictures,)."""
        return pa.array(values, mask=self.missing)

    def lists(self, values: pa.Array, kept: NDArray[np.bool_]) -> pa.Array:
        """Return a column of lists; `values` are the kept ones of `kept`, (pictures, columns) bool, row by row."""
        return pa.ListArray.from_arrays(list_offsets(kept.sum(1)), values, mask=pa.array(self.missing))


def _category_path(found: Answers) -> pa.Array:
    return found.scope.paths.take(pa.array(found.leaf[:, 0], mask=found.missing))


def _level_probabilities(answers: Answers) -> pa.Array:
    levels = answers.level_probability
    kept = np.arange(levels.shape[1]) < answers.scope.lengths[answers.leaf[:, 0]][:, None]
    kept &= ~answers.missing[:, None]
    return answers.lists(pa.array(levels[kept]), kept)


def _alternatives(found: Answers) -> pa.Array:
    paths = found.scope.paths.take(pa.array(found.leaf[:, 1:][found.others]))
    probability = pa.array(found.probability[:, 1:][found.others])
    return found.lists(pa.StructArray.from_arrays([paths, probability], fields=list(ALTERNATIVE)), found.others)


COLUMNS: dict[str, Callable[[Answers], pa.Array]] = {
    "category_path": _category_path,
    "probability": lambda found: found.numbers(found.probability[:, 0]),
    "level_probabilities": _level_probabilities,
    "alternatives": _alternatives,
    "outside_probability": lambda found: found.numbers(found.outside),
}
"""By their names in `PREDICTIONS`, which has their types."""


def answer_table(scope: Scope, posteriors: Sequence[Posterior]) -> pa.Table:
    """Turn results of searches in a scope into a table of `COLUMNS`, without a loop over pictures.

    A picture whose answer is NaN or infinite has a row of nulls.
    """
    schema = pa.schema([PREDICTIONS.field(name) for name in COLUMNS])
    if not posteriors:
        return schema.empty_table()
    answers = Answers(scope, posteriors)
    return pa.table([make(answers) for make in COLUMNS.values()], schema=schema)
