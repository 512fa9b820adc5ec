import pytest

from atlas_ray.taxonomy import Taxonomy, format_path
from atlas_ray.taxonomy.lookup import LeafLookup

LEAVES = [
    ("Women", "Ethnic Wear", "Sarees"),
    ("Women", "Tops/Tees", "Café T-Shirts"),
    ("Men", "Shirts"),
    ("Men", "shirts"),
    ("Men", "Shoes"),
]


@pytest.fixture(scope="module")
def lookup() -> LeafLookup:
    return LeafLookup(Taxonomy(LEAVES, name="t"))


@pytest.mark.parametrize(
    ("written", "leaf"),
    [
        ("women > ethnic wear > sarees", 0),
        ("WOMEN/Ethnic  Wear/Sarees", 0),
        ("Women » Ethnic Wear » Sarees", 0),
        ("Women|Ethnic Wear|Sarees", 0),
        ("Women -> Ethnic Wear -> Sarees >", 0),
        ("Women\\Ethnic Wear\\Sarees", 0),
        ("Women: Ethnic Wear: Sarees", 0),
        ("Women > Tops / Tees > Cafe\u0301 t-shirts", 1),
        ("Women/Tops/Tees/Café T-Shirts", 1),
        ("Men > Shirts", 2),
        ("Men/Shirts", None),  # it may mean either
        ("Men > Shoe", None),
        ("Sarees", None),
        ("", None),
    ],
)
def test_a_leaf_is_found_as_it_is_written(lookup: LeafLookup, written: str, leaf: int | None) -> None:
    assert lookup.find((written,)) == (None if leaf is None else LEAVES[leaf])


def test_names_that_are_exact_win(lookup: LeafLookup) -> None:
    assert lookup.find(("Men", "Shirts")) == ("Men", "Shirts")
    assert lookup.find(("Men", "shirts")) == ("Men", "shirts")
    assert lookup.find(("men", "SHOES")) == ("Men", "Shoes")


@pytest.mark.parametrize(
    ("written", "leaf"),
    [
        ("Men > Shoe", "Men > Shoes"),
        ("Womens/Ethnic/Sarees", "Women > Ethnic Wear > Sarees"),
        ("Saree", "Women > Ethnic Wear > Sarees"),
        ("qqqqqqqqqq", None),
    ],
)
def test_the_closest_leaf_is_told(lookup: LeafLookup, written: str, leaf: str | None) -> None:
    found = lookup.closest((written,))
    assert (found and format_path(found)) == leaf


def test_few_texts_are_compared_with_all_leaves() -> None:
    lookup = LeafLookup(Taxonomy([("Men", f"Shoes {number}") for number in range(100)], name="t"))
    found = [lookup.closest((f"Men > Shoe {number}",)) for number in range(80)]
    assert sum(path is not None for path in found) == 50
    assert lookup.closest(("men > shoe 3",)) == found[3]
