import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog import settling
from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog

HEADER = ["Handle", "Title", "Type", "Variant Price", "Image Src", "Image Position"]
CDN = "https://cdn.shop.example"
SHIRT = [
    ["shirt", "Shirt", "Men > Shirts", "10", f"{CDN}/1.jpg", "1"],
    ["shirt", "", "", "12", f"{CDN}/2.jpg", "2"],
    ["shirt", "", "", "", f"{CDN}/3.jpg", "3"],
    ["shirt", "", "", "12", "", ""],
]
MUG = [["mug", "", "", "", f"{CDN}/m2.jpg", "2"], ["mug", "Mug", "Home > Mugs", "5", f"{CDN}/m1.jpg", "1"]]


def run(folder: Path, lines: list[list[str]]) -> ImportReport:
    with (folder / "shop.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *lines])
    return import_catalog(ImportConfig(source=str(folder / "shop.csv"), output=str(folder / "out")))


def products(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["product_id"]: row for row in pq.read_table(folder / "out" / "products").to_pylist()}


def check_both(folder: Path, report: ImportReport) -> None:
    shirt, mug = (products(folder)[name] for name in ("shirt", "mug"))
    assert shirt["image_uris"] == [f"{CDN}/{number}.jpg" for number in (1, 2, 3)]
    assert (shirt["title"], shirt["category_path"]) == ("Shirt", ["Men", "Shirts"])
    assert mug["image_uris"] == [f"{CDN}/m1.jpg", f"{CDN}/m2.jpg"]
    assert (mug["title"], mug["price"], mug["category_path"]) == ("Mug", 5, ["Home", "Mugs"])
    assert (report.products, report.images, report.labelled, report.joined) == (2, 5, 2, 4)
    assert report.splits.total() == 2
    assert report.quarantined == {}
    pictures = pq.read_table(folder / "out" / "images").to_pylist()
    assert sorted(row["image_uri"] for row in pictures) == sorted(shirt["image_uris"] + mug["image_uris"])
    assert json.loads((folder / "out" / "run.json").read_text())["counts"]["joined"] == 4


def test_rows_of_one_product_that_follow_each_other(tmp_path: Path) -> None:
    report = run(tmp_path, SHIRT + MUG)
    check_both(tmp_path, report)
    assert products(tmp_path)["shirt"]["price"] == 10
    assert report.kept_first == {"price": 2}


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_one_product_that_stand_apart(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "PART_ROWS", 1 + seed % 3)
    lines = SHIRT + MUG
    random.Random(seed).shuffle(lines)
    check_both(tmp_path, run(tmp_path, lines))


def test_without_positions_the_order_of_the_rows_is_kept(tmp_path: Path) -> None:
    lines = [["a", "", "", "", f"{CDN}/{name}.jpg", ""] for name in "zxy"]
    lines[1:1] = [["b", "B", "", "", f"{CDN}/b.jpg", ""], ["b", "B", "", "", f"{CDN}/b.jpg", ""]]
    assert run(tmp_path, lines).joined == 3
    assert products(tmp_path)["a"]["image_uris"] == [f"{CDN}/{name}.jpg" for name in "zxy"]
    assert products(tmp_path)["b"]["image_uris"] == [f"{CDN}/b.jpg"]


def test_contradictions_go_to_quarantine(tmp_path: Path) -> None:
    lines = [
        ["a", "Shirt", "Men > Shirts", "", "1.jpg", ""],
        ["a", "Mug", "", "", "2.jpg", ""],
        ["a", "Shirt", "Home > Mugs", "", "3.jpg", ""],
        ["b", "Hat", "", "", "4.jpg", ""],
        ["a", "Shirt", "", "", "5.jpg", ""],
        ["a", "Shoe", "", "", "6.jpg", ""],
        ["c", "", "Men > Hats", "", "", ""],
        ["c", "", "", "3", "", ""],
        ["b", "", "Men > Hats", "", "", ""],
    ]
    report = run(tmp_path, lines)
    found = products(tmp_path)
    assert [Path(uri).name for uri in found["a"]["image_uris"]] == ["1.jpg", "5.jpg"]
    assert found["b"]["category_path"] == ["Men", "Hats"]
    assert found["b"]["split"]
    assert report.quarantined == {"contradicting_rows": 3, "missing_images": 2}
    assert report.products + report.joined + report.quarantined.total() == len(lines)
    assert report.labelled == 2
    messages = {
        row["message"].partition("shop.csv, ")[2] for row in pq.read_table(tmp_path / "out" / "quarantine").to_pylist()
    }
    kept = "in an earlier row of the product 'a', which was kept"
    assert messages == {
        f"line 3: the title is 'Mug', but 'Shirt' {kept}",
        f"line 4: the category_path is 'Home > Mugs', but 'Men > Shirts' {kept}",
        f"line 7: the title is 'Shoe', but 'Shirt' {kept}",
        "line 8: the row names no picture, and its product has no text",
        "line 9: the row names no picture, and its product has no text",
    }
