import numpy as np
import pytest

from atlas_ray.metrics.decision import decided_levels, decision_curve, least_threshold

LEVELS = np.array([[0.9, 0.8, 0.7], [0.9, 0.5, 0.2], [0.6, 0.4, 0.0]])
LENGTHS = np.array([3, 3, 2])


def test_the_deepest_level_that_is_sure_enough() -> None:
    assert decided_levels(LEVELS, LENGTHS, 0.75).tolist() == [2, 1, 0]
    assert decided_levels(LEVELS, LENGTHS, 0.0).tolist() == [3, 3, 2]  # not past a path's end


def test_the_curve_by_hand() -> None:
    curve = decision_curve(LEVELS, LENGTHS, shared=np.array([3, 1, 0]))
    by_threshold = {round(one.threshold, 4): one for one in curve}
    lowest, highest = by_threshold[0.2], by_threshold[0.9]
    assert [lowest.precision, lowest.answered, lowest.leaves] == pytest.approx([1 / 3, 1, 1])
    assert [highest.precision, highest.answered, highest.leaves] == pytest.approx([1, 2 / 3, 0])
    found = least_threshold(curve, 0.99)
    assert found is not None
    assert found.precision == 1.0
    # At 0.6 the third product is answered with its first level, which is wrong.
    assert 0.6 < found.threshold <= 0.7
    assert least_threshold(curve, 1.1) is None


def test_a_calibrated_model_reaches_what_it_promises() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.beta(5, 1, (2, 40_000))
    levels = np.stack([first, first * second], 1)
    shared = (rng.random(40_000) < first).astype(int)
    shared += (shared == 1) & (rng.random(40_000) < second)
    half = slice(0, 20_000), slice(20_000, None)
    lengths = np.full(20_000, 2)
    found = least_threshold(decision_curve(levels[half[0]], lengths, shared[half[0]]), 0.95)
    assert found is not None
    decided = decided_levels(levels[half[1]], lengths, found.threshold)
    answered = decided > 0
    assert (decided <= shared[half[1]])[answered].mean() == pytest.approx(0.95, abs=0.01)
    assert answered.mean() == pytest.approx(found.answered, abs=0.01)
