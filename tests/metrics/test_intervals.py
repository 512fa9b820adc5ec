import numpy as np
import pytest

from atlas_ray.metrics import measure
from atlas_ray.metrics.intervals import intervals
from atlas_ray.taxonomy import CategoryPath

S, T, D = ("M", "W", "S"), ("M", "W", "T"), ("W", "D")
PAIRS: dict[tuple[CategoryPath, CategoryPath | None], int] = {
    (S, S): 60, (S, T): 20, (T, T): 50, (T, D): 10, (D, D): 40, (D, None): 20,
}  # fmt: skip


def test_they_hold_the_measures_and_are_those_of_products_drawn_again() -> None:
    found = intervals(PAIRS)
    measured = measure(PAIRS)
    wanted = {"exact": measured.exact, "hierarchical_f1": measured.hierarchical_f1, "macro_f1": measured.macro_f1}
    wanted |= {f"level_{level}": value for level, value in enumerate(measured.levels, 1)}
    assert found.keys() == wanted.keys()
    products = [pair for pair, count in PAIRS.items() for _ in range(count)]
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(400):
        again: dict[tuple[CategoryPath, CategoryPath | None], int] = {}
        for place in random.integers(0, len(products), len(products)):
            again[products[place]] = again.get(products[place], 0) + 1
        one = measure(again)
        drawn.append({"exact": one.exact, "hierarchical_f1": one.hierarchical_f1, "macro_f1": one.macro_f1,
                      **{f"level_{level}": value for level, value in enumerate(one.levels, 1)}})  # fmt: skip
    for name, (low, high) in found.items():
        assert low < wanted[name] < high
        assert (low, high) == pytest.approx(np.quantile([one[name] for one in drawn], (0.025, 0.975)), abs=0.015)


def test_the_same_seed_gives_the_same_and_certainty_no_width() -> None:
    assert intervals(PAIRS) == intervals(PAIRS)
    assert intervals({(S, S): 5})["exact"] == (1.0, 1.0)
    assert intervals({(S, None): 5})["macro_f1"] == (0.0, 0.0)
