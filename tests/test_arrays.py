"""The steps between NumPy arrays and Arrow columns."""

import numpy as np
import pyarrow as pa
import pytest

from atlas_ray.arrays import first_of_each, list_offsets, scatter


def test_lists_of_any_length() -> None:
    offsets = list_offsets(np.array([2, 0, 1]))
    assert pa.ListArray.from_arrays(offsets, pa.array(["a", "b", "c"])).to_pylist() == [["a", "b"], [], ["c"]]
    assert list_offsets(np.zeros(0, np.int64)).to_pylist() == [0]
    with pytest.raises(pa.ArrowInvalid):  # what a list's offsets cannot count is no smaller list
        list_offsets(np.array([2**31]))


def test_rows_are_null_where_none_is_put() -> None:
    assert scatter(pa.array(["a", "b"]), np.array([3, 1]), 4).to_pylist() == [None, "b", None, "a"]
    assert scatter(pa.table({"x": pa.array([], pa.int64())}), np.zeros(0, int), 2).to_pylist() == [{"x": None}] * 2


def test_the_first_of_each_group() -> None:
    group = np.array([1, 0, 1, 0, 1])
    assert first_of_each(group).tolist() == [True, True, False, False, False]
    value = np.array([0.5, 0.2, 0.1, 0.2, 0.1])
    assert first_of_each(group, value).tolist() == [False, True, True, False, False]
    assert first_of_each(group, value, -np.arange(5)).tolist() == [False, False, False, True, True]
