"""The steps between NumPy arrays and Arrow columns."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_ray.arrays import first_of_each, list_offsets, scatter, text_hashes


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


@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_a_text_has_one_hash_wherever_it_stands(texts: list[str | None], cut: int, start: int) -> None:
    column = pa.chunked_array([pa.array(texts[:cut], pa.string()), pa.array(texts[cut:], pa.string())])
    alone = [int(text_hashes(pa.chunked_array([pa.array([text], pa.string())]))[0]) for text in texts]
    assert text_hashes(column).tolist() == alone
    assert text_hashes(column.slice(start)).tolist() == alone[start:]
    assert len(set(alone)) == len({text or "" for text in texts})


def test_hashes_part_ids_that_count_up_evenly() -> None:
    hashes = text_hashes(pa.chunked_array([[f"sku-{number}" for number in range(100_000)]]))
    assert len(np.unique(hashes)) == 100_000
    share = np.bincount((hashes % np.uint64(100)).astype(np.int64), minlength=100) / 1000
    assert share.min() > 0.8
    assert share.max() < 1.2
