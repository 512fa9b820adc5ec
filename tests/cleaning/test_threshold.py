import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_ray.cleaning.threshold import choose_threshold


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
