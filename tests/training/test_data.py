"""The examples that a training takes from the products table, as far as they are known without Ray."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.errors import CatalogError
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.training.data import labelled_pictures, labelled_texts

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
