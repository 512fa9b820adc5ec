import math
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from atlas_ray.errors import RowError, StorageError
from atlas_ray.formats import values
from atlas_ray.io.storage import locate
from atlas_ray.schemas import QUARANTINE, quarantine_row

NAN = float("nan")
ANY_TEXT = st.text(st.characters())
"""Also halves of characters."""


def refused(reader: Any, value: Any) -> str:
    with pytest.raises(RowError) as caught:
        reader(value, "field")
    assert caught.value.code in ("bad_value", "bad_encoding")
    assert caught.value.message.startswith(("the field", "a name in the field"))
    return caught.value.message


@pytest.mark.parametrize("value", [None, NAN, Decimal("nan"), "", "  ", "\u00a0", "\ufeff", "\u200b \ufeff"])
def test_what_is_missing(value: Any) -> None:
    assert values.is_missing(value)
    assert values.text_value(value, "title") is None
    assert values.identifier(value, "id") is None
    assert values.number(value, "price") is None
    assert "expected text" in refused(values.name_value, value)


@pytest.mark.parametrize("value", ["nan", "None", "null", 0, "0", False])
def test_what_is_not_missing(value: Any) -> None:
    assert not values.is_missing(value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("W-1 ", "W-1"), (123, "123"), (0, "0"), (-7, "-7"), (10**20, "1" + "0" * 20), ("123.0", "123.0"),
        ("\ufeff7", "7"), ("Cafe\u0301", "Caf\u00e9"), ("a b", "a b"),
    ],
)  # fmt: skip
def test_ids(value: Any, found: str) -> None:
    assert values.identifier(value, "field") == found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (123.0, "123.0, a decimal number"), (True, "True, true or false"), ({"$oid": "x"}, "{'$oid': 'x'}, an object"),
        (["a"], "['a'], a list"), (b"a", "b'a', bytes"), (Decimal("1.5"), "Decimal('1.5'), a decimal number"),
        ("a\0b", "control character"), ("a\nb", "control character"), ("a\u2028b", "control character"),
        ("a\ud83d", "'a\\\\ud83d' is not valid Unicode"),
    ],
)  # fmt: skip
def test_ids_that_are_none(value: Any, shown: str) -> None:
    assert shown in refused(values.identifier, value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("  A b ", "A b"), (501, "501"), (2.5, "2.5"), ("a\0b", "ab"), ("a\r\nb\rc", "a\nb\nc"),
        ("e\0\u0301", "\u00e9"), ("a\u2028b\x0bc", "a b c"),
        ("\x1b[31mred", "[31mred"), ("half \ud83d", "half \ufffd"), ("e\u0301", "\u00e9"), ("nan", "nan"),
    ],
)  # fmt: skip
def test_texts(value: Any, found: str) -> None:
    assert values.text_value(value, "field") == found


@pytest.mark.parametrize("value", [True, ["a"], {"en": "a"}, b"a", math.inf])
def test_texts_that_are_none(value: Any) -> None:
    refused(values.text_value, value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("Cafe\u0301", "Caf\u00e9"), (" A\u2028B ", "A B"), ("Shoes\x0bMen", "Shoes Men"),
        ("Shoes\x85Men", "Shoes Men"),
        ("A \u00a0 B", "A B"), ("A\nB", "A B"), (2020, "2020"),
    ],
)  # fmt: skip
def test_names(value: Any, found: str) -> None:
    assert values.name_value(value, "field") == found


@pytest.mark.parametrize("value", [True, 1.5, ["A"], {"name": "A"}, "A\udc80"])
def test_names_that_are_none(value: Any) -> None:
    refused(values.name_value, value)


@pytest.mark.parametrize(("value", "found"), [(1, 1.0), ("2.50", 2.5), (Decimal("3.1"), 3.1), (" -4e2 ", -400.0)])
def test_numbers(value: Any, found: float) -> None:
    assert values.number(value, "field") == found


@pytest.mark.parametrize("value", [True, "x", "1_000", "inf", "nan", math.inf, 10**400, [1], "١"])
def test_numbers_that_are_none(value: Any) -> None:
    refused(values.number, value)


@pytest.mark.long
def test_what_is_nested_without_end_can_be_described() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert values.describe(value) == "something nested without end, a list"


@given(ANY_TEXT)
def test_clean_text_fits_into_a_table_and_stays_as_it_is(text: str) -> None:
    clean = values.clean_text(text)
    assert pa.array([clean]).to_pylist() == [clean]
    assert values.clean_text(clean) == clean
    assert values.clean_name(values.clean_name(text)) == values.clean_name(text)
    assert len(values.clean_name(text).splitlines()) <= 1


@given(ANY_TEXT, ANY_TEXT)
def test_a_quarantine_row_takes_any_text(message: str, name: str) -> None:
    row = quarantine_row("import", "bad_row", message, product_id=name, image_uri=name)
    assert pa.Table.from_pylist([row], schema=QUARANTINE).to_pylist() == [row | {"etag": None}]


@pytest.mark.parametrize("uri", ["bad\udcff.jpg", "s3://shop/a\ud83d", "a\0b", "/tmp/caf\udce9/x.csv"])
def test_a_path_that_is_not_text(uri: str) -> None:
    with pytest.raises(StorageError, match=r"rename it") as caught:
        locate(uri)
    str(caught.value).encode()
