"""Columns and rows are read alike: a table says what its rows say when they are read one by one."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_ray.catalog.fields import Columns
from atlas_ray.catalog.parts import Place, RawRow
from atlas_ray.catalog.rows import RowReader
from atlas_ray.catalog.table_reader import ROWS, TableReader
from atlas_ray.taxonomy import Taxonomy

TAXONOMY = Taxonomy([("A", "B"), ("A", "C"), ("D",)], name="target")
TEXTS = ["", " ", "a", "  two words ", "tab\there", "line\nend\r\n", "\u00e9", "e\u0301", "\u200bx", "\ufeff", "nan",
         "NULL", "n/a", "#REF!", "\x00", "\x85y", "\u2028", "\u3000wide", "-", "=\"7\"", "1.5E+15", "0007", "x" * 1030,
         "\\N"]  # fmt: skip
PICTURES = ["a.jpg", "x/b.png", "a.jpg,b.jpg", "a.jpg|b.jpg", "https://h.example/a.jpg", "https://h.example/a b.jpg",
            "../a.jpg", "s3://b/k.jpg", "s3://b//k", "/etc/a.jpg", "C:\\a.jpg", "n/a", "no_selection", "http://h.example",
            ".a.jpg", "a..jpg", "x/../b.jpg", "x//b.jpg", "[\"a.jpg\"]", "data:image/png;base64,xx", "a.jpg ",
            "HTTPS://h.example/a.JPG"]  # fmt: skip
PRICES = ["5", "5.25", "5.255", "1.299", "1,299", "$5", "-5", "nan", "1e3", "007", "cheap", " 5"]
CATEGORIES = ["A > B", "A>C", "D", "A > X", "A > B, D", "n/a", "A > > B", " A > B > ", "A/B", '[["A","B"],["D"]]']


def texts(*more: str) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.sampled_from([*TEXTS, *more]), st.text(max_size=5))


TABLES = {
    "texts": {
        "id": texts("a-1", "b 2"), "title": texts(), "description": texts(), "price": texts(*PRICES),
        "currency": texts("EUR", "\u20ac"), "category": texts(*CATEGORIES), "image": texts(*PICTURES),
        "image_2": texts(*PICTURES), "split": texts("dev", "Train"), "image_position": texts("1", "2"),
        "brand": texts(), "store": texts(), "breadcrumb": texts(*CATEGORIES), "url": texts(),
    },
    "numbers": {
        "id": st.one_of(st.none(), st.integers(-5, 2**62)), "title": st.one_of(st.none(), st.integers(0, 9)),
        "price": st.one_of(st.none(), st.floats(width=32)), "category": st.one_of(st.none(), st.integers(0, 3)),
        "image_position": st.one_of(st.none(), st.integers(0, 2**62)), "image": texts(*PICTURES),
    },
    "lists": {
        "id": texts("a-1"), "image": st.one_of(st.none(), st.lists(texts(*PICTURES), max_size=3)),
        "category": st.one_of(st.none(), st.lists(texts("A", "B"), max_size=3)),
        "additional_image_link": st.one_of(st.none(), st.lists(texts(*PICTURES), max_size=2)), "title": texts(),
    },
    "decimals": {
        "id": texts("a-1"), "price": st.one_of(st.none(), st.decimals(-5, 5, places=2)), "image": texts(*PICTURES),
    },
}  # fmt: skip


def reader(**settings: Any) -> RowReader:
    return RowReader(image_base="/shop", **settings)


SETTINGS: dict[str, Callable[[], RowReader]] = {
    "plain": reader,
    "taxonomy": lambda: reader(taxonomy=TAXONOMY),
    "doubts": lambda: reader(doubts_paths=True, category_separator=","),
    "separator": lambda: reader(image_separator=";", store="mine", point_marks_thousands=True),
    "mapped": lambda: reader(columns=Columns({"title": "description", "image_uris": "image,image_2"})),
    "kept": lambda: reader(keep=("price", "title", "Nothing")),
}


def counts(reader: RowReader) -> Any:
    unread = {name: missed.unread for name, missed in reader.unread.items()}
    taken = {key: count for key, count in reader.taken.items() if count}
    return unread, taken, reader.tally.best(), reader.tally.most(), reader.deepest, reader.unsure


def check(table: pa.Table, make: Callable[[], RowReader]) -> None:
    by_column, by_row = make(), make()
    numbers = list(range(2, len(table) + 2))
    found = TableReader(by_column).read(table, numbers, lambda number: Place(3, number, "line", "a.csv"))
    rows = [
        RawRow(Place(3, number, "line", "a.csv"), row) for number, row in zip(numbers, table.to_pylist(), strict=True)
    ]
    expected = TableReader(by_row).read_rows(rows)
    assert found.schema == expected.schema == ROWS
    assert sorted(found.to_pylist(), key=lambda row: row["number"]) == expected.to_pylist()
    (unread, *others), (unread_too, *others_too) = counts(by_column), counts(by_row)
    assert others[:4] == others_too[:4]
    assert {name: one.count for name, one in unread.items()} == {name: one.count for name, one in unread_too.items()}
    assert (others[4] and others[4].count) == (others_too[4] and others_too[4].count)


@pytest.mark.long
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", TABLES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_columns_say_what_rows_say(name: str, kind: str, data: st.DataObject) -> None:
    columns = TABLES[name]
    rows = data.draw(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=6))
    types = {"numbers": {"price": pa.float32()}, "decimals": {"price": pa.decimal128(9, 2)}}.get(name, {})
    try:
        table = pa.table({key: pa.array([row[key] for row in rows], types.get(key)) for key in columns})
    except UnicodeEncodeError:  # half a character, which no table holds
        return
    check(table, SETTINGS[kind])


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (pa.array([7.0, None]), "7"),
        (pa.array(["7"]).dictionary_encode(), "7"),
        (pa.array(["7"], pa.large_string()), "7"),
        (pa.array(["7"], pa.string_view()), "7"),
        (pa.array([b"7"]), "7"),
        (pa.array([7], pa.uint8()), "7"),
    ],
)
def test_ids_of_any_layout(array: pa.Array, value: str) -> None:
    table = pa.table({"id": array, "title": pa.array(["x"] * len(array))})
    found = TableReader(reader()).read(table, list(range(len(array))), lambda number: Place(0, number, "row"))
    assert found["product_id"][0].as_py() == value


def test_ids_that_are_no_whole_numbers_are_refused() -> None:
    table = pa.table({"id": [7.5, 8.0], "title": ["x", "y"]})
    found = TableReader(reader()).read(table, [1, 2], lambda number: Place(0, number, "row"))
    assert found["error_code"].to_pylist() == ["bad_value", "bad_value"]


def test_bytes_that_are_no_text_cost_nothing_else() -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])),
                                                 pa.py_buffer(b"a\xff")])  # fmt: skip
    table = pa.table({"id": pa.array(["1", "2"]), "title": bad, "price": [Decimal("1.5"), None]})
    found = TableReader(reader()).read(table, [1, 2], lambda number: Place(0, number, "row")).to_pylist()
    assert [row["title"] for row in found] == ["a", "\ufffd"]
    assert [row["price"] for row in found] == [1.5, None]
