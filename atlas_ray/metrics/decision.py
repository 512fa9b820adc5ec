"""The choice between leaf and ancestor: how deep answers may go so that a target share of them is right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atlas_ray.arrays import Array

THRESHOLDS = 200
"""The number of thresholds that are tried."""


@dataclass(frozen=True)
class Decision:
    """The figures of answering with the deepest level of at least a threshold's probability."""

    threshold: float
    precision: float
    """Share of the answers that hold: the path, or the ancestor of it that was answered with, is right."""
    answered: float
    """Share of the products that get an answer."""
    leaves: float
    """Share of the products whose answer is a leaf."""


def decided_levels(levels: Array, lengths: Array, threshold: float) -> Array:
    """Return the deepest level of at least a probability, (products,); 0 if there is none.

    Args:
        levels: (products, depth) the probability of each prefix of the path, falling with the level.
        lengths: (products,) how many levels the path has.
        threshold: The least probability.
    """
    deep: Array = ((levels >= threshold) & (np.arange(levels.shape[1]) < lengths[:, None])).sum(1)
    return deep


def decision_curve(levels: Array, lengths: Array, shared: Array) -> list[Decision]:
    """Return what comes of thresholds from low to high.

    Args:
        levels: (products, depth), as `decided_levels`.
        lengths: (products,), as `decided_levels`.
        shared: (products,) how many names from the top are right.
    """
    scores = levels[np.arange(levels.shape[1]) < lengths[:, None]]
    curve = []
    for threshold in np.unique(np.quantile(scores, np.linspace(0, 1, THRESHOLDS))) if len(scores) else ():
        decided = decided_levels(levels, lengths, threshold)
        answered = decided > 0
        right = answered & (decided <= shared)
        curve.append(
            Decision(
                threshold=float(threshold),
                precision=float(right.sum() / answered.sum()),
                answered=float(answered.mean()),
                leaves=float((decided == lengths).mean()),
            )
        )
    return curve


def least_threshold(curve: Sequence[Decision], precision: float) -> Decision | None:
    """Return the decision of the lowest threshold that reaches a precision; None if none does."""
    return next((one for one in curve if one.precision >= precision), None)
