from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest

from atlas_ray.catalog.fields import Columns
from atlas_ray.catalog.rows import RowReader, Unread
from atlas_ray.errors import RowError
from atlas_ray.taxonomy import Taxonomy


def read(**row: Any) -> tuple[dict[str, Any], dict[str, Unread]]:
    reader = RowReader(image_base="/shop")
    product = reader.product({"id": "1", "image": "a.jpg"} | row, "line 2")
    return product, {name: missed.unread for name, missed in reader.unread.items()}


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ({"a": "Women", "b": "Tops", "c": "Tees"}, ["Women", "Tops", "Tees"]),
        ({"a": "Women", "b": "Bags &amp; Belts", "c": ""}, ["Women", "Bags & Belts"]),
        ({"a": "Women"}, ["Women"]),
        ({"a": "Women", "b": "n/a", "c": "-"}, ["Women"]),
        ({"a": "Women", "b": "Women > Tops", "c": "Women > Tops > Tees"}, ["Women", "Tops", "Tees"]),
        ({"a": "A, B", "b": 7, "c": None}, ["A, B", "7"]),
        ({"a": "", "b": None}, None),
        ({"a": "Women", "b": "", "c": "Tees"}, "bad_value"),
        ({"b": "Tops"}, "bad_value"),
        ({"a": "Women", "b": "Tops > Tees"}, "bad_category_path"),
    ],
)
def test_a_column_for_each_level(row: dict[str, Any], path: list[str] | str | None) -> None:
    reader = RowReader(image_base="/shop", columns=Columns({"category_path": "a,b,c"}))
    raw = {"id": "1", "image": "a.jpg"} | row
    if isinstance(path, str):
        with pytest.raises(RowError, match=path):
            reader.product(raw, "line 2")
    else:
        assert reader.product(raw, "line 2")["category_path"] == path


@pytest.mark.parametrize(
    ("category", "path"),
    [
        ("212", ["Clothing", "Tops"]),
        (212, ["Clothing", "Tops"]),
        (" gid://shop/a-1 ", ["Clothing", "Hats"]),
        ("Clothing > Hats", ["Clothing", "Hats"]),
        ("1604", ["Clothing"]),  # above the leaves
        ("213", "unknown_category"),
        (True, "bad_category_path"),
    ],
)
def test_a_category_may_be_its_id_in_the_taxonomy(category: Any, path: list[str] | str) -> None:
    ids = {"1604": ("Clothing",), "212": ("Clothing", "Tops"), "gid://shop/a-1": ("Clothing", "Hats")}
    reader = RowReader(image_base="/shop", taxonomy=Taxonomy(ids.values(), name="target", ids=ids))
    raw = {"id": "1", "image": "a.jpg", "category": category}
    if isinstance(path, str):
        with pytest.raises(RowError, match=path):
            reader.product(raw, "line 2")
    else:
        assert reader.product(raw, "line 2")["category_path"] == path


def test_a_picture_that_a_shop_says_it_lacks() -> None:
    product, unread = read(image="no_selection")
    assert product["image_uris"] == {}
    assert unread["image_uris"].count == 1


@pytest.mark.parametrize(
    ("row", "price", "currency"),
    [
        ({"price": "$12.99"}, 12.99, None),
        ({"price": "12.345,00 €"}, 12345, "EUR"),
        ({"price": "12,99 zł", "currency": ""}, 12.99, "PLN"),
        ({"price": "USD 5", "currency": "eur"}, 5, "EUR"),
        ({"price": 5, "currency": "€"}, 5, "EUR"),
        ({"price": 0}, 0, None),
        ({"price": ""}, None, None),
        ({"price": float("nan")}, None, None),
    ],
)
def test_prices(row: dict[str, Any], price: float | None, currency: str | None) -> None:
    product, unread = read(**row)
    assert (product["price"], product["currency"]) == (price, currency)
    assert unread == {}


@pytest.mark.parametrize(
    ("name", "value", "example"),
    [
        ("price", "N/A", "'N/A', text (line 2)"),
        ("price", True, "True, true or false (line 2)"),
        ("price", -5, "-5, a number (line 2)"),
        ("price", 10**400, None),
        ("price", {"amount": 5}, "{'amount': 5}, an object (line 2)"),
        ("crawled_at", "12/31/2020", "'12/31/2020', text (line 2)"),
        ("crawled_at", 1609372800, "1609372800, a number (line 2)"),
        ("crawled_at", "yesterday", "'yesterday', text (line 2)"),
        ("crawled_at", "0001-01-01T00:00:00+14:00", "'0001-01-01T00:00:00+14:00', text (line 2)"),
        ("category", "N/A", None),
        ("category", " null ", None),
        ("category", "-", None),
        ("split", "middle", "'middle', text (line 2)"),
        ("split", 1, "1, a number (line 2)"),
        ("title", {"en": "Mug"}, "{'en': 'Mug'}, an object (line 2)"),
        ("breadcrumb", 7, "7, a number (line 2)"),
        ("image_position", "first", "'first', text (line 2)"),
    ],
)
def test_an_optional_field_that_cannot_be_read_does_not_cost_the_product(
    name: str, value: Any, example: str | None
) -> None:
    product, unread = read(**{name: value})
    field = "category_path" if name == "category" else name
    assert product["image_uris"] == {"/shop/a.jpg": inf}
    assert product.get(field) is None
    assert unread.keys() == {field}
    assert unread[field].count == 1
    assert example is None or unread[field].example == example


@pytest.mark.parametrize(
    ("word", "split"),
    [("Train", "train"), ("dev", "val"), ("validation", "val"), ("TEST", "test"), (" Training ", "train"),
     ("Valid", "val"), ("holdout", "test")],
)  # fmt: skip
def test_splits_in_other_words(word: str, split: str) -> None:
    assert read(split=word)[0]["split"] == split


def test_times() -> None:
    assert read(crawled_at="2020-12-31")[0]["crawled_at"] == datetime(2020, 12, 31, tzinfo=UTC)
    assert read(crawled_at=" 2020-12-31T10:00:00Z")[0]["crawled_at"] == datetime(2020, 12, 31, 10, tzinfo=UTC)


def test_a_picture_that_cannot_be_read_does_not_cost_the_others() -> None:
    product, unread = read(image=["a.jpg", "C:\\b.jpg", "data:image/png;base64,xx", "c.jpg"], image_position="3")
    assert product["image_uris"] == {"/shop/a.jpg": 3, "/shop/c.jpg": 3}
    assert unread == {"image_uris": Unread(2, "'C:\\\\b.jpg', text (line 2)")}


def test_a_word_in_the_place_of_a_picture_is_no_picture() -> None:
    product, unread = read(image="N/A", image_1="b.jpg")
    assert product["image_uris"] == {"/shop/b.jpg": inf}
    assert unread == {"image_uris": Unread(1, "'N/A', text (line 2)")}
    assert read(image="null")[0]["image_uris"] == {}


def test_what_was_taken_from_which_column() -> None:
    reader = RowReader(image_base="/shop")
    for row in ({"ID": 1, "Image 1": "a.jpg", "Image 2": "b.jpg"}, {"ID": 2, "Image 1": "c.jpg", "Image 2": ""}):
        reader.product(row, "")
    assert reader.taken == {("product_id", "ID"): 2, ("image_uris", "Image 1"): 2, ("image_uris", "Image 2"): 1}


def test_paths_that_were_not_separated_are_told() -> None:
    reader = RowReader(image_base="/shop", separators={"category_path": ">"})
    for number, path in enumerate(("A/B", "A/C", "D")):
        reader.product({"id": number, "image": "a.jpg", "category": path}, "")
    assert reader.likely_separator == "/"
    reader.product({"id": 9, "image": "a.jpg", "category": "A > B"}, "")
    assert reader.likely_separator is None


@pytest.mark.parametrize("value", ["nan", "NULL", "#N/A", "#REF!", "\\N", "None", " - ", "n/a", '=""'])
def test_ids_that_stand_for_none(value: str) -> None:
    with pytest.raises(RowError, match="no product id") as caught:
        read(id=value)
    assert caught.value.code == "missing_product_id"


@pytest.mark.parametrize("value", ["1.23457E+12", "8,90123E+12", '="4.0E+10"'])
def test_an_id_that_a_spreadsheet_cut_could_be_that_of_any_product(value: str) -> None:
    with pytest.raises(RowError, match="a spreadsheet cut") as caught:
        read(id=value)
    assert caught.value.code == "bad_value"


@pytest.mark.parametrize(
    ("value", "product_id"),
    [('="007"', "007"), ("007", "007"), ("1E5", "1E5"), ("1.0", "1.0"), ("A-1.5E+2", "A-1.5E+2"), ("nana", "nana")],
)
def test_ids_stay_as_they_are(value: str, product_id: str) -> None:
    assert read(id=value)[0]["product_id"] == product_id


@pytest.mark.parametrize("value", ["nan", "#VALUE!", "#DIV/0!", "null", "\\N"])
@pytest.mark.parametrize("name", ["title", "description", "store"])
def test_texts_that_stand_for_none_are_counted(name: str, value: str) -> None:
    product, unread = read(**{name: value})
    assert product[name] is None
    assert unread == {name: Unread(1, f"{value!r}, text (line 2)")}


@pytest.mark.parametrize("value", ["['W' 'X']", '{W,"X"}', "W > X"])
def test_paths_as_programs_print_them(value: Any) -> None:
    assert read(category=value)[0]["category_path"] == ["W", "X"]


@pytest.mark.parametrize("value", ["['W', nan]", '["W", null]', ["W", None], "{W,NULL}"])
def test_a_path_with_a_missing_name(value: Any) -> None:
    with pytest.raises(RowError, match="a missing value") as caught:
        read(category=value)
    assert caught.value.code == "bad_value"
