"""The labels of a taxonomy, and which of them a category path has."""

import random

import numpy as np
import pytest

from atlas_ray.errors import TaxonomyError
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from atlas_ray.taxonomy.labels import united

SHOP = Taxonomy(
    [
        ("Men", "Apparel", "Shirts"),
        ("Men", "Apparel", "Jackets"),
        ("Men", "Sports", "Jackets"),
        ("Women", "Apparel", "Shirts"),
        ("Women", "Watches", "Watches"),
        ("Gifts",),
    ],
    name="shop",
)


def test_names_are_flattened() -> None:
    space = LabelSpace(SHOP)
    assert space.names == (
        "Men", "Men > Apparel", "Shirts", "Apparel > Jackets", "Sports", "Sports > Jackets",
        "Women", "Women > Apparel", "Women > Watches", "Watches > Watches", "Gifts",
    )  # fmt: skip

    def named(*path: str) -> list[str]:
        return [space.names[label] for label in space.of(path)]

    assert named("Men", "Apparel", "Shirts") == ["Men", "Men > Apparel", "Shirts"]
    assert named("Women", "Apparel", "Shirts") == ["Women", "Women > Apparel", "Shirts"]
    assert named("Women", "Watches", "Watches") == ["Women", "Women > Watches", "Watches > Watches"]
    assert named("Men", "Sports") == ["Men", "Sports"]
    assert named("Gifts") == ["Gifts"]
    with pytest.raises(TaxonomyError, match="'Men > Shoes' is not in the taxonomy 'shop'"):
        space.of(("Men", "Shoes", "Boots"))


def test_rare_labels_are_left_out() -> None:
    products = [9, 7, 9, 2, 2, 2, 7, 4, 3, 3, 1]  # of each label
    space = LabelSpace.common(SHOP, products, 5)
    assert space.names == ("Men", "Men > Apparel", "Shirts", "Women")
    assert space.of(("Women", "Watches", "Watches")) == [3]
    assert space.of(("Gifts",)) == []
    assert LabelSpace.common(SHOP, products, 1).names == LabelSpace(SHOP).names
    with pytest.raises(TaxonomyError, match="no label has 10 products or more; the most, 9, has 'Men'"):
        LabelSpace.common(SHOP, products, 10)


def test_a_product_has_the_labels_of_all_its_paths() -> None:
    space = LabelSpace(SHOP)
    has = space.targets(SHOP.leaves)
    shirt, gift, boots = SHOP.leaves.index(("Men", "Apparel", "Shirts")), SHOP.leaves.index(("Gifts",)), 1
    table = united(has, np.array([shirt, gift, boots]), np.array([0, 2]))
    named = [{name for name, is_one in zip(space.names, row, strict=True) if is_one} for row in table]
    assert named[0] == {"Men", "Men > Apparel", "Shirts", "Gifts"}
    assert table[1].tolist() == has[boots].tolist()
    assert united(has, np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0, len(space))


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "expected one label or more"), (["Men", "Men"], "each once"), (["Men", "Jackets"], "has no label 'Jackets'")],
)
def test_labels_that_are_none_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        LabelSpace(SHOP, names)


@pytest.mark.parametrize("seed", range(20))
def test_laws(seed: int) -> None:
    rng = random.Random(seed)
    drawn = {tuple(rng.choices("ABCD", k=rng.randint(1, 4))) for _ in range(12)}
    taxonomy = Taxonomy(sorted(drawn), name="drawn")
    space = LabelSpace(taxonomy)
    assert len(space) == len({path[-2:] if len(path) > 1 else ("", *path) for path in taxonomy.nodes})
    assert space.names == LabelSpace(taxonomy, space.names).names
    table = space.targets(taxonomy.nodes)
    assert table.shape == (len(taxonomy.nodes), len(space))
    assert table.any(0).all()
    for path, row in zip(taxonomy.nodes, table, strict=True):
        labels = space.of(path)
        assert np.flatnonzero(row).tolist() == sorted(labels)
        assert space.names[labels[-1]].rpartition(" > ")[2] in path
        assert {space.names[label].rpartition(" > ")[2] for label in labels} == set(path)
        assert set(space.of(path[:-1])) <= set(labels) if len(path) > 1 else len(labels) == 1
    kept = LabelSpace(taxonomy, space.names[::2])
    np.testing.assert_array_equal(kept.targets(taxonomy.nodes), table[:, ::2])
