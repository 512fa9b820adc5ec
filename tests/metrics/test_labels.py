"""Micro-averaged measures, by hand."""

import pytest
import torch

from atlas_ray.metrics import MicroF1, compare


def test_micro_f1_by_hand() -> None:
    named = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    has = torch.tensor([[True, False, True], [False, True, False], [True, False, False]])
    right, wrong, missed = compare(named, has)
    assert right.nonzero().tolist() == [[0, 0], [1, 1]]
    assert wrong.nonzero().tolist() == [[0, 1]]
    assert missed.nonzero().tolist() == [[0, 2], [2, 0]]
    found = MicroF1.of(*compare(named, has).sum((1, 2)).tolist())
    assert (found.precision, found.recall) == (2 / 3, 2 / 4)
    assert found.f1 == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


def test_nothing_right_is_zero() -> None:
    assert MicroF1.of(0, 0, 0) == MicroF1.of(0, 3, 0) == MicroF1.of(0, 0, 2) == MicroF1(0.0, 0.0, 0.0)
    assert MicroF1.of(4, 0, 0) == MicroF1(1.0, 1.0, 1.0)
