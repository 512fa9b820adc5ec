"""Micro-averaged measures, by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas_ray.metrics.labels import MicroF1, ThresholdCurve, compare

PRODUCTS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans()), max_size=12)


def test_micro_f1_by_hand() -> None:
    named = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    has = torch.tensor([[True, False, True], [False, True, False], [True, False, False]])
    right, wrong, missed = compare(named, has)
    assert right.nonzero().tolist() == [[0, 0], [1, 1]]
    assert wrong.nonzero().tolist() == [[0, 1]]
    assert missed.nonzero().tolist() == [[0, 2], [2, 0]]
    found = MicroF1.of(*(int(labels.sum()) for labels in compare(named, has)))
    assert (found.precision, found.recall) == (2 / 3, 2 / 4)
    assert found.f1 == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


def test_nothing_right_is_zero() -> None:
    assert MicroF1.of(0, 0, 0) == MicroF1.of(0, 3, 0) == MicroF1.of(0, 0, 2) == MicroF1(0.0, 0.0, 0.0)
    assert MicroF1.of(4, 0, 0) == MicroF1(1.0, 1.0, 1.0)


def test_a_threshold_lies_between_what_it_names_and_the_next_product() -> None:
    curve = ThresholdCurve.of(np.array([0.9, 0.2, 0.8, 0.4]), np.array([True, False, True, False]), 0.5)
    assert curve.best == pytest.approx(0.6)
    assert (curve.f1, curve.support) == (1.0, 2)
    assert curve.least(0.9) == pytest.approx(0.6)
    assert curve.least(0.5) == pytest.approx(0.1)  # all four
    never = ThresholdCurve.of(np.array([0.9, 0.8]), np.array([False, True]), 0.5)
    assert never.least(0.9) is None
    assert ThresholdCurve.of(np.array([0.9, 0.8]), np.zeros(2, bool), 0.5).best == 0.5  # nothing to choose by


def measured(products: list[tuple[float, bool]], threshold: float) -> MicroF1:
    named = [(probability >= threshold, has) for probability, has in products]
    return MicroF1.of(
        sum(both == (True, True) for both in named),
        sum(both == (True, False) for both in named),
        sum(both == (False, True) for both in named),
    )


@given(PRODUCTS)
def test_no_other_threshold_is_better_and_each_keeps_its_promise(products: list[tuple[float, bool]]) -> None:
    probability, has = (np.array([one[at] for one in products], kind) for at, kind in ((0, float), (1, bool)))
    curve = ThresholdCurve.of(probability, has, 0.5)
    tried = [*np.unique(probability[probability > 0]).tolist(), 2.0]
    if curve.support and probability.any():
        assert measured(products, curve.best).f1 == pytest.approx(curve.f1)
        assert curve.f1 == pytest.approx(max(measured(products, threshold).f1 for threshold in tried))
    for wanted in (0.1, 0.5, 0.9, 1.0):
        least = curve.least(wanted)
        reached = [threshold for threshold in tried if measured(products, threshold).precision >= wanted]
        if least is not None:
            assert measured(products, least).precision >= wanted
            assert not [threshold for threshold in reached if threshold < least]
        elif curve.support:
            assert not reached
