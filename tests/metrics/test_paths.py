import pytest

from atlas_ray.metrics import measure

A, B, C = ("M", "W", "S"), ("M", "W", "T"), ("W", "D")


def test_by_hand() -> None:
    found = measure({(A, A): 6, (A, B): 2, (B, C): 1, (C, C): 2, (C, None): 1})
    assert (found.products, found.unscored) == (12, 1)
    assert found.exact == pytest.approx(8 / 12)
    # level 1 wrong: B as C, C as nothing; level 3 exists for the 9 products of A and B
    assert found.levels == pytest.approx((10 / 12, 10 / 12, 6 / 9))
    # common names 6*3 + 2*2 + 0 + 2*2 = 26; true 8*3 + 3 + 3*2 = 33; predicted 6*3 + 2*3 + 2 + 4 = 30
    precision, recall = 26 / 30, 26 / 33
    assert found.hierarchical_f1 == pytest.approx(2 * precision * recall / (precision + recall))
    rows = {row.path: row for row in found.paths}
    assert (rows[A].precision, rows[A].recall, rows[A].support, rows[A].predicted) == (1, 0.75, 8, 6)
    assert (rows[B].precision, rows[B].recall, rows[B].f1) == (0, 0, 0)
    assert rows[C].precision == rows[C].recall == pytest.approx(2 / 3)
    assert [row.path for row in found.paths] == [A, C, B]
    assert found.macro_f1 == pytest.approx((2 * 0.75 / 1.75 + 0 + 2 / 3) / 3)


def test_all_right_and_all_wrong() -> None:
    right = measure({(A, A): 3, (C, C): 1})
    assert (right.exact, right.hierarchical_f1, right.macro_f1, right.levels) == (1, 1, 1, (1, 1, 1))
    wrong = measure({(A, C): 3})
    assert (wrong.exact, wrong.hierarchical_f1, wrong.macro_f1, wrong.levels) == (0, 0, 0, (0, 0, 0))


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="no product"):
        measure({})
