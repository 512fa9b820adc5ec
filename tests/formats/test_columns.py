"""Columns as other programs write them, read as the contract's types."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from atlas_ray.formats.columns import cast, cast_path, cast_split, fits, plain_type, unreadable
from atlas_ray.schemas import ALTERNATIVE, CATEGORY_PATH

TEXT, NUMBER, WHOLE, TEXTS = pa.string(), pa.float64(), pa.int32(), pa.list_(pa.string())
MOMENT = pa.timestamp("us", tz="UTC")
NAN, INF = float("nan"), float("inf")
ONE_SECOND = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def dictionaries_in_lists() -> pa.Array:
    values = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["a", "b"]))
    return pa.ListArray.from_arrays(pa.array([0, 2, 3]), values)


EXACT = [
    (pa.array(["a", None], pa.large_string()), TEXT, ["a", None]),
    (pa.array(["a", None], pa.string_view()), TEXT, ["a", None]),
    (pa.array(["a", None, "a"]).dictionary_encode(), TEXT, ["a", None, "a"]),
    (pa.array(["a"], pa.large_string()).dictionary_encode(), TEXT, ["a"]),
    (pa.nulls(2), TEXT, [None, None]),
    (pa.nulls(2), TEXTS, [None, None]),
    (pa.nulls(2), NUMBER, [None, None]),
    (pa.array([7, None, -1], pa.int64()), TEXT, ["7", None, "-1"]),
    (pa.array([2**64 - 1], pa.uint64()), TEXT, ["18446744073709551615"]),
    (pa.array([1, 2], pa.uint8()).dictionary_encode(), TEXT, ["1", "2"]),
    (pa.array([1.5, NAN, None], pa.float32()), NUMBER, [1.5, None, None]),
    (pa.array([np.float16(1.5)], pa.float16()), NUMBER, [1.5]),
    (pa.array([3, None], pa.int16()), NUMBER, [3.0, None]),
    (pa.array([Decimal("12.99"), None], pa.decimal128(10, 2)), NUMBER, [12.99, None]),
    (pa.array([1, None], pa.uint8()), WHOLE, [1, None]),
    (pa.array([1, None], pa.timestamp("s")), MOMENT, [ONE_SECOND, None]),
    (pa.array([1000], pa.timestamp("ms", tz="Asia/Kolkata")), MOMENT, [ONE_SECOND]),
    (pa.array([1_000_000_999], pa.timestamp("ns")), MOMENT, [ONE_SECOND]),
    (pa.array([date(1970, 1, 2)]), MOMENT, [datetime(1970, 1, 2, tzinfo=UTC)]),
    (pa.array([["a", "b"], None, []], pa.large_list(pa.large_string())), TEXTS, [["a", "b"], None, []]),
    (pa.array([["a", "b"], None, ["c", "d"]], pa.list_(TEXT, 2)), TEXTS, [["a", "b"], None, ["c", "d"]]),
    (pa.array([["a"], None], pa.list_view(pa.string_view())), TEXTS, [["a"], None]),
    (dictionaries_in_lists(), TEXTS, [["a", "b"], ["a"]]),
    (pa.array([[], None], pa.list_(pa.null())), TEXTS, [[], None]),
    (pa.array([["a", None, "b"], [None]], TEXTS), TEXTS, [["a", "b"], []]),
    (pa.array([[["a"], ["b", "c"]], None], pa.large_list(pa.large_list(TEXT))), pa.list_(TEXTS),
     [[["a"], ["b", "c"]], None]),
    (pa.array([[("k", "v")], None], pa.map_(pa.large_string(), pa.large_string())), pa.map_(TEXT, TEXT),
     [[("k", "v")], None]),
    (pa.array([[{"probability": 0.5, "category_path": ["W"]}], None]), pa.list_(ALTERNATIVE),
     [[{"category_path": ["W"], "probability": 0.5}], None]),
]  # fmt: skip
"""What a program may write, the type it is read as, and what comes out."""

INEXACT = [
    (pa.array(["12.5", " 3 ", "N/A", "", "  ", None, "on request"]), NUMBER,
     [12.5, 3.0, None, None, None, None, None], ["N/A", "on request"]),
    (pa.array(["N/A", "1299"]).dictionary_encode(), NUMBER, [None, 1299.0], ["N/A"]),
    (pa.array(["ask us", "7"], pa.large_string()), NUMBER, [None, 7.0], ["ask us"]),
    (pa.array([1.0, NAN, None, 2.5, 1e300, INF]), TEXT, ["1", None, None, None, None, None], [2.5, 1e300, INF]),
    (pa.array([Decimal("7"), Decimal("12345678901234567890")], pa.decimal128(38, 0)), TEXT,
     ["7", "12345678901234567890"], []),
    (pa.array([Decimal("7.00"), Decimal("7.50")], pa.decimal128(9, 2)), TEXT, ["7", None], [Decimal("7.50")]),
    (pa.array([b"caf\xc3\xa9", b"\xff", None]), TEXT, ["café", None, None], [b"\xff"]),
    (pa.array([640, 2**40, None]), WHOLE, [640, None, None], [2**40]),
    (pa.array([640.0, NAN, 0.5]), WHOLE, [640, None, None], [0.5]),
    (pa.array(["640", "wide"]), WHOLE, [640, None], ["wide"]),
    (pa.array(["2024-05-06", "2024-05-06T02:00:00+02:00", "yesterday"]), MOMENT,
     [datetime(2024, 5, 6, tzinfo=UTC), datetime(2024, 5, 6, tzinfo=UTC), None], ["yesterday"]),
]  # fmt: skip


@pytest.mark.parametrize(("written", "target", "read"), EXACT, ids=lambda one: str(getattr(one, "type", "")))
def test_what_says_the_same_is_read_as_the_same(written: pa.Array, target: pa.DataType, read: list[Any]) -> None:
    assert fits(written.type, target)
    assert cast(written, target).equals(pa.array(read, target))
    assert cast(written[1:], target).equals(pa.array(read[1:], target))  # an array may begin anywhere in its buffers
    assert cast(written, target).type == target


@pytest.mark.parametrize(("written", "target", "read", "lost"), INEXACT, ids=lambda one: str(getattr(one, "type", "")))
def test_what_says_nothing_is_null_and_known(
    written: pa.Array, target: pa.DataType, read: list[Any], lost: list[Any]
) -> None:
    assert not fits(written.type, target)
    assert cast(written, target).equals(pa.array(read, target))
    assert cast(written[1:], target).equals(pa.array(read[1:], target))
    assert written.filter(unreadable(written, target)).to_pylist() == lost


@pytest.mark.parametrize(
    ("found", "target"),
    [
        (pa.bool_(), TEXT), (pa.timestamp("us"), TEXT), (pa.bool_(), NUMBER), (TEXT, TEXTS), (TEXTS, TEXT),
        (pa.list_(NUMBER), TEXTS), (pa.int64(), MOMENT), (pa.struct([("a", TEXT)]), TEXT), (TEXTS, NUMBER),
        (pa.list_(TEXTS), TEXTS), (pa.dictionary(pa.int8(), pa.bool_()), TEXT),
        (pa.map_(TEXT, NUMBER), pa.map_(TEXT, TEXT)),
    ],
)  # fmt: skip
def test_what_is_of_another_kind_does_not_fit(found: pa.DataType, target: pa.DataType) -> None:
    with pytest.raises(TypeError, match="does not say"):
        fits(found, target)


def test_a_path_with_a_missing_name_is_no_other_path() -> None:
    paths = pa.array([["W", None], ["W", "S"], [], None, [None]], pa.large_list(TEXT))
    read = cast_path(paths, CATEGORY_PATH)
    assert read.to_pylist() == [None, ["W", "S"], None, None, None]
    assert unreadable(paths, CATEGORY_PATH, cast_path).to_pylist() == [True, False, False, False, True]
    assert cast_path(pa.nulls(2), CATEGORY_PATH).to_pylist() == [None, None]


def test_columns_without_a_contract_lose_their_layout_alone() -> None:
    assert plain_type(pa.dictionary(pa.int8(), pa.large_string())) == TEXT
    assert plain_type(pa.large_list(pa.string_view())) == TEXTS
    assert plain_type(pa.struct([("a", pa.large_string())])) == pa.struct([("a", TEXT)])
    assert plain_type(pa.map_(pa.large_string(), pa.int8())) == pa.map_(TEXT, pa.int8())
    assert plain_type(pa.int8()) == pa.int8()


def test_names_of_a_path_are_written_as_everywhere_else() -> None:
    written = pa.array([["Cafe\u0301", " A  B "], ["Caf\u00e9"], None, [None], ["\u2028"], ["x"]])
    paths = [["Caf\u00e9", "A B"], ["Caf\u00e9"], None, None, [""], ["x"]]
    assert cast_path(written, CATEGORY_PATH).to_pylist() == paths
    for array in (written.slice(1, 4), written.slice(1, 4).cast(pa.large_list(pa.large_string()))):
        assert cast_path(array, CATEGORY_PATH).to_pylist() == paths[1:5]


@pytest.mark.parametrize("layout", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_splits_in_other_words(layout: pa.DataType) -> None:
    texts = ["train", "Training", "dev", " Validation ", "TEST", "holdout", None, "", "unused"]
    written = pa.array(texts).cast(layout)
    sides = ["train", "train", "val", "val", "test", "test", None, None, None]
    assert cast_split(written, pa.string()).to_pylist() == sides
    assert unreadable(written, pa.string(), cast_split).to_pylist() == [False] * 8 + [True]
