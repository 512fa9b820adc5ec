import numpy as np
import pytest

from atlas_ray.metrics.paired import paired_accuracy


def test_counts_and_interval() -> None:
    found = paired_accuracy(700, 60, 30, 210)
    assert (found.products, found.won, found.lost) == (1000, 60, 30)
    assert (found.before, found.after) == (0.73, 0.76)
    assert found.difference == pytest.approx(0.03)
    # The difference's standard error, from the variance of one product's +1, -1 or 0.
    error = np.sqrt((0.06 + 0.03 - 0.03**2) / 1000)
    assert found.low == pytest.approx(0.03 - 1.96 * error, abs=0.001)
    assert found.high == pytest.approx(0.03 + 1.96 * error, abs=0.001)
    assert found == paired_accuracy(700, 60, 30, 210)


def test_the_interval_is_that_of_products_drawn_one_by_one() -> None:
    outcomes = np.repeat([0, 1, -1, 0], [20, 12, 5, 13])
    draws = np.random.default_rng(1).choice(outcomes, (20_000, len(outcomes)))
    low, high = np.quantile(draws.mean(1), [0.025, 0.975])
    found = paired_accuracy(20, 12, 5, 13)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.021)  # a product is 0.02


def test_runs_that_agree_and_no_products() -> None:
    found = paired_accuracy(3, 0, 0, 1)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="nothing to compare"):
        paired_accuracy(0, 0, 0, 0)
