from collections import Counter

import pyarrow as pa
import pytest

from atlas_ray.catalog.split import SPLITS, resplit

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
def test_a_new_split_keeps_groups_whole_and_shares_by_path(seed: int) -> None:
    paths = {"A > Shirts": 1200, "A > Shoes": 400, "B > Rare": 3, "B > One": 1}
    labels = [path for path, count in paths.items() for _ in range(count)]
    rows: list[tuple[str, str | None, str | None]] = [(f"{n:04d}", path, None) for n, path in enumerate(labels)]
    rows.append(("unlabelled", None, None))
    products = catalog(rows)
    members = [[f"{n:04d}" for n in range(first, first + size)] for first, size in ((0, 90), (100, 20), (1190, 20))]
    members += [[f"{n:04d}", f"{n + 1:04d}"] for n in range(200, 600, 2)] + [["0199", "unlabelled"]]
    groups = pa.table(
        {"product_id": [i for ids in members for i in ids], "group": [n for n, ids in enumerate(members) for _ in ids]},
        schema=GROUPS,
    )
    new = dict(
        zip(products["product_id"].to_pylist(), resplit(products, groups, SHARES, seed).to_pylist(), strict=True)
    )
    assert all(len({new[i] for i in ids} - {None}) == 1 for ids in members)
    assert new.pop("unlabelled") is None
    for path, count in paths.items():
        counts = Counter(new[f"{n:04d}"] for n, label in enumerate(labels) if label == path)
        assert counts["train"] >= 1
        for name, share in zip(SPLITS, SHARES, strict=True):
            assert abs(counts[name] - share * count) <= 1 + (counts["train"] == 1), (path, counts)
    order = list(range(len(products)))[::-1]
    turned = resplit(products.take(order), groups.take(list(range(len(groups)))[::-1]), SHARES, seed)
    assert turned.to_pylist() == [new.get(i) for i in products["product_id"].to_pylist()][::-1]
    assert resplit(products, groups, SHARES, seed + 2).to_pylist() != [*new.values(), None]


def test_small_paths_meet_the_shares_together() -> None:
    """In 2,000 paths of two products the first trains; the second is drawn, so that none is always left out."""
    products = catalog([(f"{n}", f"P{n // 2}", None) for n in range(4000)])
    counts = Counter(resplit(products, GROUPS.empty_table(), SHARES, 0).to_pylist())
    assert abs(counts["test"] - 0.30 * 4000) < 120
    assert abs(counts["val"] - 0.05 * 4000) < 60
