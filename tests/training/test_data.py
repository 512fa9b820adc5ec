"""The examples that a training takes from the products table, as far as they are known without Ray."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

from atlas_ray.errors import CatalogError
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from atlas_ray.training import data
from atlas_ray.training.data import EachStart, labelled_pictures, labelled_texts, repeats_of, shuffled
from atlas_ray.training.loop import label_weights

TAXONOMY = Taxonomy([("Garden", "Pots"), ("Garden", "Hoses")], name="small")


def write(folder: Path, ids: list[str], splits: list[str]) -> str:
    (folder / "products").mkdir(parents=True)
    count = len(ids)
    table: dict[str, Any] = {
        "product_id": ids,
        "title": ["A pot"] * count,
        "image_uris": [["/a.jpg"]] * count,
        "category_path": [["Garden", "Pots"]] * count,
        "split": splits,
    }
    for number in range(0, count, 2):  # rows of one product may stand in several files
        part = {name: values[number : number + 2] for name, values in table.items()}
        pq.write_table(pa.table(part), folder / "products" / f"{number}.parquet")
    return str(folder)


def test_a_product_of_several_rows_is_refused_by_name(tmp_path: Path) -> None:
    catalog = write(tmp_path, ["p1", "p2", "p3", "p2"], ["train"] * 4)
    with pytest.raises(CatalogError, match=r"products: 1 labelled products of the split 'train' .* such as 'p2'"):
        labelled_texts(catalog, "train", TAXONOMY, "title")
    with pytest.raises(CatalogError, match="select"):
        labelled_pictures(catalog, "train", TAXONOMY)


def test_each_product_counts_once(tmp_path: Path) -> None:
    catalog = write(tmp_path, ["p1", "p2", "p3", "p4"], ["train", "val", "train", "val"])
    found = labelled_texts(catalog, "train", TAXONOMY, "title")
    assert (found.count, len(found.products)) == (2, 2)


SHOP = Taxonomy([("Men", "Shirts"), ("Women", "Shirts"), ("Women", "Skirts"), ("Gifts",)], name="shop")
PATHS: list[list[list[str]]] = [
    [["Men", "Shirts"], ["Women", "Shirts"]],
    [["Women", "Skirts"]],
    [["Men", "Hats"], ["Gifts"], ["Gifts"]],  # the first is not a leaf
    [["Men", "Hats"]],
]


def with_several_paths(folder: Path, *, all_paths: bool = True) -> str:
    (folder / "products").mkdir(parents=True)
    table: dict[str, Any] = {
        "product_id": ["a", "b", "c", "d"],
        "title": ["A", "B", "C", "D"],
        "image_uris": [["/a1.jpg", "/a2.jpg"], ["/b.jpg"], ["/c.jpg"], ["/d.jpg"]],
        "category_path": [paths[0] for paths in PATHS],
        "split": ["train"] * 4,
    }
    if all_paths:
        table["category_paths"] = [paths if len(paths) > 1 else None for paths in PATHS]
    pq.write_table(pa.table(table), folder / "products" / "0.parquet")
    return str(folder)


def examples(catalog: str, source: str, *, several: bool) -> list[dict[str, Any]]:
    products = pq.read_table(f"{catalog}/products")
    rows: list[dict[str, Any]] = data._explode(
        products, source, "train", SHOP.leaf_positions, several=several
    ).to_pylist()
    return rows


def test_labels_are_those_of_all_paths(tmp_path: Path) -> None:
    catalog = with_several_paths(tmp_path)
    men, women, skirts, gifts = (SHOP.leaf_positions[path] for path in SHOP.leaves)
    found = labelled_texts(catalog, "train", SHOP, "title", several=True)
    assert (found.count, found.unusable, found.inner) == (3, 1, {("Men", "Hats"): 1})
    assert dict(zip(LabelSpace(SHOP).names, found.label_products, strict=True)) == {
        "Men": 1, "Men > Shirts": 1, "Women": 2, "Women > Shirts": 1, "Skirts": 1, "Gifts": 1,
    }  # fmt: skip
    assert [row["labels"] for row in examples(catalog, "title", several=True)] == [[men, women], [skirts], [gifts]]
    pictures = examples(catalog, "image_uris", several=True)
    assert [(row["name"], row["labels"]) for row in pictures] == [
        ("/a1.jpg", [men, women]), ("/a2.jpg", [men, women]), ("/b.jpg", [skirts]), ("/c.jpg", [gifts]),
    ]  # fmt: skip
    space = LabelSpace(SHOP)
    rows = pa.table({"labels": [row["labels"] for row in pictures]})
    for part in (rows, rows.slice(1, 2), rows.slice(0, 0)):  # Ray hands on slices
        label = data._label(part["labels"], space.targets(SHOP.leaves))
        expected = [space.targets(SHOP.leaves[leaf] for leaf in leaves).any(0) for leaves in part["labels"].to_pylist()]
        assert label.tolist() == np.array(expected, bool).reshape(-1, len(space)).tolist()


def test_a_path_is_the_first_one(tmp_path: Path) -> None:
    catalog = with_several_paths(tmp_path)
    found = labelled_texts(catalog, "train", SHOP, "title")
    assert (found.count, found.unusable, found.label_products) == (2, 2, ())
    rows = examples(catalog, "title", several=False)
    assert [SHOP.leaves[row["labels"][0]] for row in rows] == [("Men", "Shirts"), ("Women", "Skirts")]
    assert data._label(pa.chunked_array([[row["labels"] for row in rows]]), None).tolist() == [
        row["labels"][0] for row in rows
    ]


def test_labels_above_the_leaf_are_examples(tmp_path: Path) -> None:
    labels: list[list[str] | None] = [["Women", "Skirts"], ["Women"], ["Men"], [], ["Women", "Hats"], None]
    (tmp_path / "products").mkdir()
    table = {
        "product_id": list("abcdef"), "title": ["T"] * 6, "image_uris": [["/1.jpg", "/2.jpg"]] * 6,
        "category_path": labels, "category_paths": [None] * 6, "split": ["train"] * 6,
    }  # fmt: skip
    types = pa.list_(pa.string())
    columns = {**table, "category_path": pa.array(labels, types), "category_paths": pa.nulls(6, pa.list_(types))}
    pq.write_table(pa.table(columns), tmp_path / "products" / "0.parquet")
    found = labelled_pictures(str(tmp_path), "train", SHOP)
    assert (found.count, found.above, sum(found.leaf_counts)) == (6, 4, 2)
    assert found.inner == {("Women", "Hats"): 1}  # the root is no label
    skirts, women, men = (SHOP.label_positions[path] for path in [("Women", "Skirts"), ("Women",), ("Men",)])
    rows = data._explode(
        pq.read_table(tmp_path / "products"), "title", "train", SHOP.label_positions, several=False
    ).to_pylist()
    assert [row["labels"] for row in rows] == [[skirts], [women], [men]]  # men's is a node with one leaf below it
    assert labelled_texts(str(tmp_path), "train", SHOP, "title", several=True).count == 1  # of labels: leaves alone


def test_balancing_leaves_labels_above_the_leaf_as_they_are() -> None:
    counts = np.array([1, 16, 0])
    assert repeats_of(counts, 5).tolist() == [3, 1, 3, 1, 1]  # sqrt(8.5 / count)
    weights = label_weights(counts.tolist(), 5)
    assert weights[3:].tolist() == [1, 1]
    assert weights[0] / weights[1] == pytest.approx(4)
    assert float(weights[0] + 16 * weights[1] + weights[2]) == pytest.approx(18)  # a leaf of none counts as one
    assert repeats_of(np.zeros(2, np.int64), 3).tolist() == [1, 1, 1]


def test_a_table_without_further_paths_has_the_labels_of_its_paths(tmp_path: Path) -> None:
    catalog = with_several_paths(tmp_path, all_paths=False)
    found = labelled_pictures(catalog, "train", SHOP, several=True)
    assert (found.count, found.unusable) == (3, 2)


def test_workers_that_start_again_see_other_examples_first(local_ray: None) -> None:
    starts = 60

    def examples(*, shuffle_seed: int) -> ray.data.Dataset:
        return shuffled(ray.data.range(16, override_num_blocks=1), shuffle_seed=shuffle_seed)

    def first(examples: EachStart) -> list[int]:
        return [row["id"] for row in itertools.islice(examples().iter_rows(), 4)]

    def begun(*, goes_on: bool) -> EachStart:
        return EachStart(examples, 7, goes_on=goes_on)

    new = begun(goes_on=False)
    order = first(new)
    assert first(begun(goes_on=False)) == order  # a run that nothing stops is the same each time
    seen = Counter(row for _ in range(starts) for row in first(new))
    expected = starts * 4 / 16
    chi_square = sum((seen[row] - expected) ** 2 / expected for row in range(16))
    assert chi_square < 60  # 15 degrees of freedom: one in two million
    assert len({tuple(first(begun(goes_on=True))) for _ in range(5)}) > 1
