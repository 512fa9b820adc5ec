from typing import Any

import pytest

from atlas_ray.catalog.category_paths import ListTally, SeparatorTally, split_path, split_paths
from atlas_ray.errors import RowError


def best(*paths: Any) -> str:
    tally = SeparatorTally()
    for path in paths:
        tally.add(path)
    return tally.best()


@pytest.mark.parametrize(
    ("separator", "paths"),
    [
        (">", ["A > B > C", "A>B"]),
        (">", ["A &gt; B", "A &amp;gt; C", "A > B > "]),
        (">", ["Women > Tops/Tees", "Men > Tops/Tees", "Women > Skirts"]),
        (">", ["Women > Tops; Tees - new", "Men > Tops; Tees - old"]),
        (">", ["Sarees", "Kurtas"]),
        (">", ["Tops/Tees", "Sarees", "Kurtas"]),
        (">", []),
        (">", [["A", "B/C"]]),
        ("->", ["A->B", "A -> C", "D --> E"]),
        ("/", ["A/B/C", "A/D", "E"]),
        ("/", ["/A/B/", "/A/C/"]),
        ("|", ["A|B|C", "A | D"]),
        ("»", ["A » B", "A &raquo; C"]),
        (";", ["A;B", "A; C &amp; D"]),
        ("›", ["A › B"]),
        ("→", ["A → B"]),
        ("::", ["A::B"]),
        (":", ["A:B", "A: C"]),
        (" - ", ["A - B", "T-Shirts - C"]),
        ("\\", ["A\\B"]),
    ],
)
def test_separators_are_told_from_the_paths(separator: str, paths: list[Any]) -> None:
    assert best(*paths) == separator


@pytest.mark.parametrize(
    ("text", "separator", "path"),
    [
        ("A &gt; B", ">", ("A", "B")),
        ("A &amp;gt; B", ">", ("A", "B")),
        ("A > B > ", ">", ("A", "B")),
        (" > A > B >> ", ">", ("A", "B")),
        ("Bags &amp; Belts > Caf&eacute;", ">", ("Bags & Belts", "Café")),
        ("A->B", "->", ("A", "B")),
        ("A » B", "»", ("A", "B")),
        ("/A/B/C/", "/", ("A", "B", "C")),
        ("A;B", ";", ("A", "B")),
        ("Women > Tops/Tees", ">", ("Women", "Tops/Tees")),
        ("A > > B", ">", ("A", "", "B")),
        ("A # B", "#", ("A", "B")),
        ('["A", "B"]', ">", ("A", "B")),
        (["A", "A > B", "A > B > C"], ">", ("A", "B", "C")),
        (["A", "B/C", ""], "/", ("A", "B/C")),
        (["A > B"], ">", ("A", "B")),
        (["A", 7], ">", ("A", "7")),
        ("Clothing, Clothing > Hoodies", ">", ("Clothing", "Hoodies")),
        ("Store/Gear,Store/Gear/Bags,Store/Gear", "/", ("Store", "Gear", "Bags")),
        ("Home > Beds, Sofas > Red", ">", ("Home", "Beds, Sofas", "Red")),
        ("Bags, Wallets & Belts", ">", ("Bags, Wallets & Belts",)),
        (" > ", ">", ()),
        (None, ">", ()),
        (float("nan"), ">", ()),
    ],
)
def test_paths(text: Any, separator: str, path: tuple[str, ...]) -> None:
    assert split_path(text, separator, "category path") == path


@pytest.mark.parametrize(
    ("value", "code"),
    [(7, "bad_category_path"), ({"name": "A"}, "bad_category_path"), (True, "bad_category_path"),
     (["A", None], "bad_value"), (["A", float("nan")], "bad_value"), ([["A"], "B"], "bad_value"),
     ("['A', 'B > C']", "bad_category_path"), ([["A", "B"], ["A", "C"]], "bad_category_path"),
     ("A > B, A > C", "bad_category_path"), ("A > B | A > C", "bad_category_path"),
     ("A > \ud83d", "bad_encoding")],
)  # fmt: skip
def test_what_is_no_path(value: Any, code: str) -> None:
    with pytest.raises(RowError) as error:
        split_path(value, ">", "category path")
    assert error.value.code == code


def between(separator: str, *cells: Any) -> str | None:
    tally = ListTally(separator)
    for cell in cells:
        tally.add(cell)
    return tally.best()


@pytest.mark.parametrize(
    ("sign", "separator", "cells"),
    [
        (",", ">", ["Clothing > Accessories, Sale", "Clothing, Clothing > Tshirts"]),
        (",", ">", ["Clothing > Belts, Sale", "Sale"]),
        (",", ">", ["Clothing > Belts, Sale", "Shoes > Boots, Sale"]),
        (",", "/", ["Shop/Gear,Shop/Gear/Bags", "Shop/Gear/Bags,Shop/Sale"]),
        (",", ">", ["men_2015,men_2016", "men_2016"]),
        ("|", ">", ["Women > Tops | Sale", "Women > Skirts | Sale"]),
        (";", ">", ["Bags &gt; Belts; New", "New"]),
        (",", ">", ["Home > Towels\\, Robes"]),
        (None, ">", ["Clothing > Accessories, Sale"]),
        (None, ">", ["Food, Drinks & Tobacco > Tea", "Food, Drinks & Tobacco > Milk", "Home > Food"]),
        (None, ">", ["Women > Clothing, Shoes & Bags > Bags", "Men > Clothing, Shoes & Bags"]),
        (None, ">", ["Home > Beds, Sofas > Red", "Home > Lamps"]),
        (None, ";", ["A;B", "A;C"]),
        (None, ">", [["A, B"], ["B"], None, 7, ""]),
    ],
)
def test_what_stands_between_paths_is_told_from_the_cells(sign: str | None, separator: str, cells: list[Any]) -> None:
    assert between(separator, *cells) == sign


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("Clothing > Belts, Sale", (("Clothing", "Belts"), ("Sale",))),
        ("Clothing, Clothing > Belts,", (("Clothing", "Belts"),)),
        ("Home > Towels\\, Robes, Home > Towels\\, Robes", (("Home", "Towels, Robes"),)),
        (" , ", ()),
        (["A", "B, C"], (("A", "B, C"),)),
    ],
)
def test_several_paths_in_one_cell(text: Any, paths: tuple[tuple[str, ...], ...]) -> None:
    assert split_paths(text, ">", "category path", ",") == paths
