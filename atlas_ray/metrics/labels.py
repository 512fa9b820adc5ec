"""Measures of predicted labels."""

from dataclasses import dataclass

import torch
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


def compare(named: Tensor, has: Tensor) -> Tensor:
    """Return which labels of each product are named rightly, named wrongly, and missed, (3, products, labels) bool.

    Args:
        named: (products, labels) bool: those that a model names.
        has: (products, labels) bool: those that they have.
    """
    return torch.stack([named & has, named & ~has, ~named & has])
