"""Paired comparison of two classifiers over the same products, with its significance."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


def sign_test(won: int, lost: int) -> float:
    """Return the probability of as many wins or more by chance, if a win and a loss are equally likely.

    One-sided; exact up to 1,000 products, beyond that by the normal distribution.
    """
    total = won + lost
    if total > 1_000:
        return 0.5 * math.erfc((won - lost - 1) / math.sqrt(2 * total))
    return float(sum(math.comb(total, count) for count in range(won, total + 1)) / 2**total)


@dataclass(frozen=True)
class PairedAccuracy:
    """The comparison of two classifiers, before and after, on the same labelled products."""

    products: int
    before: float
    """The share that is right before."""
    after: float
    difference: float
    """After minus before."""
    low: float
    """End of the difference's 95% interval."""
    high: float
    won: int
    """The number of products that only the one after has right."""
    lost: int
    """The number of products that only the one before has right."""


def paired_accuracy(both: int, won: int, lost: int, neither: int, *, seed: int = 0) -> PairedAccuracy:
    """Compare by counts of what can become of a product.

    The interval is that of the paired bootstrap's percentiles (Efron and Tibshirani 1993, chapter 13).
    To draw products again with replacement is to draw these four counts from a multinomial
    distribution, so that a million products cost as much as ten.

    Args:
        both: Right before and after.
        won: Right after alone.
        lost: Right before alone.
        neither: Never right.
        seed: Of the draws.

    Raises:
        ValueError: if there is no product.
    """
    total = both + won + lost + neither
    if total <= 0:
        raise ValueError("no labelled product that both have; there is nothing to compare")
    shares = np.array([both, won, lost, neither]) / total
    drawn: Any = np.random.default_rng(seed).multinomial(total, shares, size=RESAMPLES)
    ends = np.quantile((drawn[:, 1] - drawn[:, 2]) / total, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return PairedAccuracy(
        products=total,
        before=(both + lost) / total,
        after=(both + won) / total,
        difference=(won - lost) / total,
        low=float(ends[0]),
        high=float(ends[1]),
        won=won,
        lost=lost,
    )
