import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.catalog.split import SPLITS, SplitRule, resplit, resplit_catalog, side_of
from atlas_ray.errors import CatalogError

SHARES = (0.65, 0.05, 0.30)
GROUPS = pa.schema([("product_id", pa.string()), ("group", pa.int64())])


def catalog(rows: list[tuple[str, str | None, str | None]]) -> pa.Table:
    """Rows of product id, path and split."""
    ids, paths, splits = zip(*rows, strict=True)
    return pa.table(
        {
            "product_id": pa.array(ids),
            "category_path": pa.array([path.split(" > ") if path else None for path in paths], pa.list_(pa.string())),
            "split": pa.array(splits, pa.string()),
        }
    )


def grouped(groups: list[str]) -> pa.Table:
    """One group a text: its products' ids, a letter each."""
    return pa.table(
        {"product_id": [i for ids in groups for i in ids], "group": [n for n, ids in enumerate(groups) for _ in ids]},
        schema=GROUPS,
    )


def test_given_test_sets_stay_and_their_copies_leave_training() -> None:
    splits = {"a": "train", "b": "test", "c": "val", "d": "val", "e": "train", "f": "train", "g": None, "h": None}
    splits |= {"i": "train", "j": "test", "k": "train"}
    products = catalog([(name, "Women > Sarees", split) for name, split in splits.items()])
    groups = grouped(["abc", "de", "fg", "hj"])
    new = resplit(products, groups, SHARES, 0)
    # fmt: off
    assert new.to_pylist() == [
        None, "test", None,  # a, b, c: tested, so neither trained nor validated on
        "val", None,  # d, e
        "train", "train",  # f and g, which joins it
        None, "train", "test", "train",
    ]
    # fmt: on
    again = products.set_column(2, "split", new)
    assert resplit(again, groups, SHARES, 0) == new


@pytest.mark.parametrize("seed", [0, 1])
def test_a_new_split_keeps_groups_whole(seed: int) -> None:
    rows: list[tuple[str, str | None, str | None]] = [(f"{n:04d}", "A > B", None) for n in range(2000)]
    products = catalog([*rows, ("unlabelled", None, None)])
    members = [[f"{n:04d}" for n in range(first, first + size)] for first, size in ((0, 90), (100, 20), (1190, 20))]
    members += [[f"{n:04d}", f"{n + 1:04d}"] for n in range(200, 600, 2)] + [["0199", "unlabelled"]]
    groups = pa.table(
        {"product_id": [i for ids in members for i in ids], "group": [n for n, ids in enumerate(members) for _ in ids]},
        schema=GROUPS,
    )
    ids: list[str] = products["product_id"].to_pylist()
    new = dict(zip(ids, resplit(products, groups, SHARES, seed).to_pylist(), strict=True))
    assert new.pop("unlabelled") is None
    smallest = {name: min(ids) for ids in members for name in ids}
    assert new == {name: side_of(smallest.get(name, name), SHARES, seed) for name in new}
    counts = Counter(new[name] for name in new if name not in smallest)
    for name, share in zip(SPLITS, SHARES, strict=True):
        assert abs(counts[name] - share * counts.total()) < 4 * (share * (1 - share) * counts.total()) ** 0.5
    order = list(range(len(products)))[::-1]
    turned = resplit(products.take(order), groups.take(list(range(len(groups)))[::-1]), SHARES, seed)
    assert turned.to_pylist() == [new.get(i) for i in ids][::-1]
    assert resplit(products, groups, SHARES, seed + 2).to_pylist() != [*new.values(), None]


def test_new_products_follow_the_known_ones_of_their_group() -> None:
    splits = {"a": "train", "b": "test", "c": "test", "d": "train", "e": "train", "f": "test", "g": "test", "h": None}
    splits |= {"i": "train", "j": "test", "k": "train", "l": None}
    products = catalog([(name, "Women > Sarees", split) for name, split in splits.items()])
    groups = grouped(["ab", "cd", "efg", "hi", "jk"])
    # fmt: off
    assert resplit(products, groups, SHARES, 0, known=set("aceflh")).to_pylist() == [
        "train", "train",  # b is new and follows a into train, so that a model that knows a is not tested on b
        "test", "test",  # d is new
        None, "test", "test",  # e and f are known and on two sides: f is tested, e left out; g is new and follows
        "train", "train",  # h is known and has no split: i, which has one, stays, and h joins it
        "test", None,  # both are new
        side_of("l", SHARES, 0),
    ]
    # fmt: on


def test_groups_stay_where_they_are_week_after_week(tmp_path: Path) -> None:
    """Each week new products, some of which show a known picture: no known product changes side, no group straddles."""
    shows = {f"{n:03d}": n for n in range(300)}
    before: dict[str, str | None] = {}
    for week in range(4):
        if week:
            shows |= {f"{900 - 100 * week + n:03d}": 37 * week + 3 * n for n in range(100)}  # smaller ids each week
            shows = {name: shown for name, shown in shows.items() if (int(name) + week) % 11}
        source = tmp_path / f"{week}.csv"
        order = sorted(shows, key=lambda name: side_of(name, SHARES, week) + name)
        source.write_text("id,image,category\n" + "".join(f"{name},{shows[name]}.jpg,A > B\n" for name in order))
        previous = (str(tmp_path / f"checked-{week - 1}"),) if week else ()
        imported, checked = str(tmp_path / f"imported-{week}"), str(tmp_path / f"checked-{week}")
        import_catalog(ImportConfig(source=str(source), output=imported, previous=previous))
        pictures = Counter(shows.values())
        groups = pa.table(
            {
                "product_id": [name for name, shown in shows.items() if pictures[shown] > 1],
                "group": [shown for shown in shows.values() if pictures[shown] > 1],
            },
            schema=GROUPS,
        )
        resplit_catalog(imported, checked, groups, SplitRule.of(imported))
        after = {row["product_id"]: row["split"] for row in pq.read_table(f"{checked}/products").to_pylist()}
        sides: dict[int, set[str | None]] = {}
        for name, split in after.items():
            sides.setdefault(shows[name], set()).add(split)
        assert all(len(found - {None}) <= 1 for found in sides.values())
        assert {name for name in before.keys() & after.keys() if after[name] != before[name]} == set()
        assert SplitRule.of(checked).previous == previous
        before = after


def test_an_earlier_catalogue_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,image,category\n1,a.jpg,A > B\n")
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    import_catalog(ImportConfig(source=str(tmp_path / "shop.csv"), output=first))
    import_catalog(ImportConfig(source=str(tmp_path / "shop.csv"), output=second, previous=(first,)))
    shutil.rmtree(first)
    with pytest.raises(CatalogError, match=f"{first}: no products table, so its split cannot be kept"):
        resplit_catalog(second, str(tmp_path / "out"), GROUPS.empty_table(), SplitRule.of(second))
