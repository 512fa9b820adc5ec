"""The decision threshold of the zoom filter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Threshold:
    """The probability from which a picture counts as zoomed, with its figures on the data that it was chosen on."""

    value: float
    precision: float
    """Share of truly zoomed pictures among those found zoomed."""
    recall: float
    """Share of the zoomed pictures that were found."""


LOW_RECALL = 0.5
"""A filter that finds a smaller share of the zoomed pictures than this is warned about."""
REPLICATES = 200
LEVEL = 0.9


def warn_of_recall(metrics: Mapping[str, Any]) -> str | None:
    """Return a warning about a filter that finds few zoomed pictures, given its metrics.json; None about another."""
    recall = metrics.get("unseen_recall", 1.0)
    if recall >= LOW_RECALL:
        return None
    return (
        f"the zoom filter finds {recall:.1%} of the zoomed pictures at its threshold {metrics['threshold']:.4f}, which "
        f"was set for the precision {metrics['target_precision']:g}, and leaves the others in. Train on more pictures, "
        "for more --epochs or for a lower --target-precision, and look for close-ups among its normal pictures"
    )


def threshold_interval(
    probabilities: NDArray[np.float32],
    zoomed: NDArray[np.bool_],
    products: NDArray[np.str_],
    target_precision: float,
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 90% interval of the threshold that `choose_threshold` finds, by the bootstrap over products.

    Args:
        probabilities: (count,) of being zoomed.
        zoomed: (count,) what is true.
        products: (count,) whose picture each is: those of one product are drawn together.
        target_precision: What to reach.
        seed: Of the draws.
    """
    _, owner = np.unique(products, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(owner))[:-1])
    rng = np.random.default_rng(seed)
    thresholds = []
    for _ in range(REPLICATES):
        rows = np.concatenate([parts[one] for one in rng.integers(0, len(parts), len(parts))])
        if zoomed[rows].any():
            thresholds.append(choose_threshold(probabilities[rows], zoomed[rows], target_precision).value)
    low, high = np.quantile(thresholds, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def choose_threshold(
    probabilities: NDArray[np.float32], zoomed: NDArray[np.bool_], target_precision: float
) -> Threshold:
    """Return the smallest threshold that reaches a precision; if none does, the most precise one.

    "Smallest" as to what it finds: it stands in the middle between two pictures' probabilities.

    Args:
        probabilities: (count,) of being zoomed.
        zoomed: (count,) what is true; at least one is.
        target_precision: What to reach.
    """
    order = np.argsort(-probabilities, kind="stable")
    sorted_probabilities = probabilities[order]
    # Pictures of one probability are found together: a threshold stands at the last of each.
    last = np.flatnonzero(np.append(sorted_probabilities[1:] != sorted_probabilities[:-1], True))
    true_positives = np.cumsum(zoomed[order])[last]  # (thresholds,) truly zoomed at or above each
    precision = true_positives / (last + 1)
    reaching = np.flatnonzero(precision >= min(target_precision, precision.max()))
    best = reaching[-1]
    # Half-way down to the next picture it finds the same, with the widest margin to both.
    candidates = np.append(sorted_probabilities[last], np.float32(0))
    lowest, below = candidates[best], candidates[best + 1]
    middle = np.float32((float(lowest) + float(below)) / 2)
    value = float(middle if middle > below else lowest)
    return Threshold(value, float(precision[best]), float(true_positives[best] / zoomed.sum()))
