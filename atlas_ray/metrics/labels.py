"""Measures of predicted labels, and the thresholds from which they are applied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atlas_ray.arrays import Array

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MicroF1:
    """Precision, recall and their harmonic mean over all decisions, a product and a label each."""

    precision: float
    """The share of the predicted labels that are right; 0 if none was predicted."""
    recall: float
    """The share of the true labels that were predicted; 0 if there are none."""
    f1: float

    @classmethod
    def of(cls, right: float, wrong: float, missed: float) -> "MicroF1":
        """Compute it.

        Args:
            right: Labels named that the products have.
            wrong: Labels named that they have not.
            missed: Labels that they have and that were not named.
        """
        return cls(
            right / (right + wrong) if right else 0.0,
            right / (right + missed) if right else 0.0,
            2 * right / (2 * right + wrong + missed) if right else 0.0,
        )


def compare(named: "Tensor", has: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
    """Return which labels of each product are named rightly, named wrongly, and missed, each (products, labels) bool.

    Args:
        named: (products, labels) bool: those that a model names.
        has: (products, labels) bool: those that they have.
    """
    return named & has, named & ~has, ~named & has


STEP = 0.001
"""The least gain in precision for which a curve has another point."""


@dataclass(frozen=True)
class ThresholdCurve:
    """The thresholds of a label on labelled products: each is the least one that reaches its precision."""

    best: float
    """The threshold of the highest F1, halfway between the last product that it names and the next one."""
    f1: float
    support: int
    """Products that have the label."""
    thresholds: Sequence[float]
    """(points,) from low to high."""
    precisions: Sequence[float]
    """(points,) the precision at each."""
    recalls: Sequence[float]
    """(points,) the recall at each."""

    @classmethod
    def of(cls, probability: Array, has: Array, default: float) -> "ThresholdCurve":
        """Measure it.

        Args:
            probability: (products,) of the label.
            has: (products,) bool: whether the product has it.
            default: The best threshold if no product has the label.
        """
        order = np.argsort(-probability, kind="stable")
        values, right = probability[order], has[order].cumsum()
        support = int(has.sum())
        ends = np.flatnonzero(np.append(values[1:] < values[:-1], True) & (values > 0)) if len(values) else order
        if not support or not len(ends):
            return cls(default, 0.0, support, (), (), ())
        named = ends + 1  # (points,) from the highest threshold to the lowest
        f1 = 2 * right[ends] / (named + support)
        below = np.append(values, 0.0)[named]
        middle = (values[ends] + below) / 2  # a label applied from here has the same products
        precision, recall = right[ends] / named, right[ends] / support
        kept: list[int] = []
        for point in range(len(ends) - 1, -1, -1):
            if not kept or precision[point] >= precision[kept[-1]] + STEP:
                kept.append(point)
        columns = (column[kept].tolist() for column in (middle, precision, recall))
        best = int(f1.argmax())
        return cls(float(middle[best]), float(f1[best]), support, *columns)

    def least(self, precision: float) -> float | None:
        """Return the lowest threshold that reaches a precision; None if none does."""
        pairs = zip(self.thresholds, self.precisions, strict=True)
        return next((threshold for threshold, reached in pairs if reached >= precision), None)
