from typing import Any

import pytest

from atlas_ray.errors import TaxonomyError
from atlas_ray.taxonomy import CategoryPath, Taxonomy, match_labels, match_leaves

SHOP = Taxonomy([("Men", "Shirts"), ("Men", "Shoes"), ("Women", "Sarees", "Silk")], name="shop")
NAMES: dict[str, Any] = {"labelled": "the catalogue c", "predicted": "the model m"}


@pytest.mark.parametrize(
    "labels",
    [
        [("Garden", "Spades")],
        [("Men", "T-Shirts"), ("Men", "Trousers")],  # one top level in common is no leaf in common
        [("men", "shirts")],  # names are compared as they are written
        [("Women", "Sarees", "Silk", "Red"), ("Garden",)],  # deeper than any leaf
        [("Men > Shirts",)],  # a path that was not taken apart
    ],
)
def test_another_taxonomy_is_refused_with_examples_of_both(labels: list[CategoryPath]) -> None:
    with pytest.raises(TaxonomyError) as found:
        match_labels(dict.fromkeys(labels, 2), SHOP, **NAMES)
    said = str(found.value)
    assert f"none of the {len(labels)} labels of the catalogue c is in it" in said
    assert f"the model m is of another taxonomy ('shop', id {SHOP.id})" in said
    assert repr(" > ".join(labels[0])) in said
    assert "its leaves 'Men > Shirts', 'Men > Shoes', 'Women > Sarees > Silk'" in said


def test_what_is_missing_is_counted() -> None:
    labels: dict[CategoryPath, int] = {("Men", "Shirts"): 90, ("Garden", "Spades"): 3, ("Men",): 7}
    said = match_labels(labels, SHOP, **NAMES, leaves_only=True)
    assert said is not None
    assert said.startswith(
        "2 of the 3 labels of the catalogue c, which 10 of 100 labelled products have, are no leaves"
    )
    assert said.endswith("such as 'Men', 'Garden > Spades'")  # the most products first
    said = match_labels(labels, SHOP, **NAMES)  # a leaf below the label is right
    assert said is not None
    assert said.startswith("1 of the 3 labels of the catalogue c, which 3 of 100 labelled products have, are no nodes")
    assert said.endswith("such as 'Garden > Spades'")
    assert match_labels({("Men", "Shoes"): 1}, SHOP, **NAMES) is None
    assert match_labels({}, SHOP, **NAMES) is None


def test_inner_nodes_alone_are_no_other_taxonomy() -> None:
    labels: dict[CategoryPath, int] = {("Men",): 4, ("Women", "Sarees"): 1}
    assert match_labels(labels, SHOP, **NAMES) is None
    said = match_labels(labels, SHOP, **NAMES, leaves_only=True)
    assert said is not None
    assert said.startswith("2 of the 2 labels of the catalogue c, which 5 of 5")


def test_leaves_without_labels() -> None:
    assert match_leaves(SHOP.leaves, SHOP, **NAMES) is None
    said = match_leaves([*(("New", str(n)) for n in range(5)), ("Men", "Shoes")], SHOP, **NAMES)
    assert said is not None
    assert said.startswith("5 of the 6 leaves of the taxonomy of the catalogue c are none of the model m")
    assert said.endswith("such as 'New > 0', 'New > 1', 'New > 2' and 2 more")
