from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_ray.metrics.zoom import choose_threshold, threshold_interval


def choose(pairs: list[tuple[float, bool]], target: float) -> tuple[float, float, float]:
    found = choose_threshold(
        np.array([p for p, _ in pairs], np.float32), np.array([zoomed for _, zoomed in pairs]), target
    )
    return found.value, found.precision, found.recall


PAIRS = [(0.125, False), (0.25, True), (0.5, False), (0.75, True), (0.75, True), (1.0, True)]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (1.0, (0.625, 1.0, 0.75)),
        (0.8, (0.1875, 0.8, 1.0)),
        (0.75, (0.1875, 0.8, 1.0)),  # 0.75 from 0.5 on too, but a smaller one reaches it
        (0.5, (0.0625, 4 / 6, 1.0)),
    ],
)
def test_the_smallest_that_reaches_the_target(target: float, expected: tuple[float, float, float]) -> None:
    assert choose(PAIRS, target) == pytest.approx(expected)


def test_where_none_does_the_most_precise_is_taken() -> None:
    assert choose([(0.75, False), (0.5, True), (0.25, True)], 0.95) == pytest.approx((0.125, 2 / 3, 1.0))


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=30),
    st.floats(0, 1),
)
def test_against_every_threshold(pairs: list[tuple[float, bool]], target: float) -> None:
    pairs = [*pairs, (0.5, True)]
    probabilities = np.array([p for p, _ in pairs], np.float32)
    zoomed = np.array([z for _, z in pairs])
    precision = {t: float(zoomed[probabilities >= t].mean()) for t in set(probabilities.tolist())}
    reaching = [t for t, value in precision.items() if value >= min(target, max(precision.values()))]
    value, reached, recall = choose(pairs, target)
    found = probabilities >= value
    assert found.tolist() == (probabilities >= min(reaching)).tolist()
    assert reached == pytest.approx(precision[min(reaching)])
    assert recall == pytest.approx(zoomed[found].sum() / zoomed.sum())


def test_between_neighbours_there_is_no_middle() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    assert choose([(float(high), True), (float(low), False)], 1.0) == (float(high), 1.0, 1.0)


def drawn(seed: int, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pictures of a filter that is fairly good: probabilities, truth, products of two pictures each."""
    rng = np.random.default_rng(seed)
    zoomed = rng.random(count) < 0.5
    probability = 1 / (1 + np.exp(-np.where(zoomed, 2.0, -2.0) - rng.normal(0, 1.6, count)))
    return probability.astype(np.float32), zoomed, np.array([f"p{number // 2}" for number in range(count)])


@pytest.mark.long
@pytest.mark.parametrize("target", [0.8, 0.95])
def test_the_interval_holds_the_threshold_and_shrinks_with_more_pictures(target: float) -> None:
    widths = []
    for count in (60, 600, 6000):
        probability, zoomed, products = drawn(1, count)
        low, high = threshold_interval(probability, zoomed, products, target)
        assert low <= choose_threshold(probability, zoomed, target).value <= high
        assert (low, high) == threshold_interval(probability, zoomed, products, target)
        widths.append(high - low)
    assert widths[2] < 0.5 * widths[0]
    truth = choose_threshold(*drawn(2, 200_000)[:2], target).value
    inside = []
    for seed in range(20):
        low, high = threshold_interval(*drawn(seed, 800), target)
        inside.append(low <= truth <= high)
    assert sum(inside) >= 14


def test_pictures_of_one_product_are_drawn_together() -> None:
    probability, zoomed, _ = drawn(3, 400)
    probability, zoomed = np.repeat(probability, 10), np.repeat(zoomed, 10)
    apart = threshold_interval(probability, zoomed, np.arange(4000).astype(str), 0.9)
    together = threshold_interval(probability, zoomed, np.repeat(np.arange(400), 10).astype(str), 0.9)
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
