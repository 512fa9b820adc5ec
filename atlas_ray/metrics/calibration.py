"""Reliability of probabilities, and the temperature that calibrates them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atlas_ray.arrays import Array

BINS = 15
BOUNDS = (0.05, 20.0)
"""The bounds of the temperatures that are tried."""
NEAR_EDGE = 1.01
"""A temperature within this factor of a bound was stopped by it."""
FEWEST = 30
"""The fewest answers that tell something of a temperature."""


@dataclass(frozen=True)
class Bin:
    """Answers of about one probability."""

    low: float
    high: float
    count: int
    probability: float
    """The mean probability of the bin."""
    accuracy: float
    """The share of the bin that is right."""


class Reliability:
    """Groups answers by their probability, in bins of one width; they may come in parts."""

    def __init__(self, bins: int = BINS) -> None:
        self._edges = np.linspace(0, 1, bins + 1)
        self._sums = np.zeros((3, bins))

    def add(self, probability: Array, right: Array) -> None:
        """Take some answers.

        Args:
            probability: (answers,) 0 to 1.
            right: (answers,) bool.
        """
        size = len(self._edges) - 1
        which = np.digitize(probability, self._edges[1:-1])
        for row, weights in enumerate((np.ones(len(which)), probability, right)):
            self._sums[row] += np.bincount(which, weights=weights, minlength=size)

    @property
    def bins(self) -> list[Bin]:
        """The bins that are not empty."""
        count, probability, right = self._sums
        return [
            Bin(float(low), float(high), int(n), float(p / n), float(r / n))
            for low, high, n, p, r in zip(self._edges, self._edges[1:], count, probability, right, strict=False)
            if n
        ]

    def risk_coverage(self) -> list[tuple[float, float, float]]:
        """Return (threshold, coverage, accuracy) of the answers of at least each probability, surest first."""
        count, _, right = (row[::-1].cumsum() for row in self._sums)
        edges = self._edges[-2::-1]
        return [
            (float(edge), float(n / count[-1]), float(r / n))
            for edge, n, r in zip(edges, count, right, strict=True)
            if n
        ]

    @property
    def expected_error(self) -> float:
        """The mean distance of probability and accuracy over the answers (Guo et al. 2017); 0 for none."""
        bins = self.bins
        return sum(one.count * abs(one.probability - one.accuracy) for one in bins) / max(sum(b.count for b in bins), 1)

    @property
    def error_by_chance(self) -> float:
        """About what `expected_error` is if the probabilities are right, since as many answers scatter by chance.

        In each bin it is the mean absolute deviation of the normal distribution that a binomial one is close to.
        """
        bins = self.bins
        deviations = sum(math.sqrt(2 / math.pi * b.count * b.probability * (1 - b.probability)) for b in bins)
        return deviations / max(sum(b.count for b in bins), 1)


def fit_temperature(log_p: Array, label: Array, product: Array | None = None, *, left_out: int = 1) -> float:
    """Return the temperature of the least cross-entropy (Guo et al. 2017, temperature scaling).

    A product's probability of a leaf is the mean over its pictures, as in a scoring run: a temperature that
    fits each picture alone leaves that mean too unsure, for what several pictures agree on is more certain.

    Args:
        log_p: (pictures, leaves) log-probabilities; -inf for leaves that a search did not find.
        label: (pictures,) the column of the right leaf, -1 if it was not found; or (pictures, right) the columns of all
            leaves of which one is right, whose probabilities are summed.
        product: (pictures,) the number of the product, from 0; None if each picture is a product.
            Products say nothing of whose right leaf no picture has a probability above 0.
        left_out: As in `tempered`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    product = np.arange(len(label)) if product is None else product
    label = label[:, None] if label.ndim == 1 else label
    # A probability that underflowed would outweigh all others.
    right = (label >= 0) & np.isfinite(np.take_along_axis(log_p, label, 1))
    known = right.any(1)
    pictures = np.bincount(product)
    log_p, label, right, product = log_p[known].astype(np.float64), label[known], right[known], product[known]
    if not len(label):
        return 1.0
    products = np.unique(product)

    def loss(log_temperature: float) -> float:
        scaled = _scaled(log_p, np.exp(log_temperature), left_out)
        wanted = np.where(right, np.take_along_axis(scaled, label, 1), -np.inf)
        chosen = logsumexp(wanted, axis=1) - logsumexp(scaled, axis=1)
        total = np.full(len(pictures), -np.inf)
        np.logaddexp.at(total, product, chosen)
        return float((np.log(pictures[products]) - total[products]).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded")
    return float(np.exp(found.x))


def doubt_of(temperatures: Sequence[float], *, right: int, answers: int) -> str | None:
    """Return a sentence about a temperature that its answers do not determine; None if they do.

    Args:
        temperatures: The fitted one, and by how much it changes the one before.
        right: How many of the answers that it was fitted on are right.
        answers: How many there are.
    """
    low, high = BOUNDS
    at_edge = any(one <= low * NEAR_EDGE or one >= high / NEAR_EDGE for one in temperatures)
    reasons = []
    if right == answers:
        reasons.append(f"every answer of these {answers} products is right, so nothing tells how often one is wrong")
    elif answers < FEWEST:
        reasons.append(f"{answers} products say little: {FEWEST} or more tell something")
    if at_edge:
        reasons.append(f"the temperature stands at the edge of its range, {low:g} to {high:g}")
    if not reasons:
        return None
    advice = "calibrate on more products, some of which the model gets wrong, before you trust its probabilities"
    return f"{'; '.join(reasons)}: {advice}"


def tempered(log_p: Array, temperature: float, *, left_out: int = 1) -> Array:
    """Return probabilities, (answers, leaves), of log-probabilities at a temperature.

    Args:
        log_p: (answers, leaves)
        temperature: What they are divided by.
        left_out: For how many leaves the last column stands, which are taken as equally likely.
    """
    from scipy.special import softmax

    probability: Array = softmax(_scaled(log_p, temperature, left_out), axis=1)
    return probability


def _scaled(log_p: Array, temperature: float, left_out: int) -> Array:
    scaled = log_p / temperature
    if left_out > 1:  # each of them at the temperature, and their sum
        scaled[:, -1] += (1 - 1 / temperature) * np.log(left_out)
    return scaled
