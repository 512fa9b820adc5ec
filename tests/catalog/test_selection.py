import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog.selection import SelectConfig, select
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, ConfigError, OutputError, StorageError
from tests.support.parts import rows


def test_the_listed_products_with_all_that_is_said_of_them(catalog: str, tmp_path: Path) -> None:
    before = rows(Path(catalog), "products")
    wanted = [row["product_id"] for row in before[3:60:7]]
    (tmp_path / "list").mkdir()
    for number, part in enumerate((wanted[:2], [*wanted[2:], wanted[2]])):
        pq.write_table(
            pa.table({"product_id": part, "reason": ["split"] * len(part)}), tmp_path / f"list/{number}.parquet"
        )
    report = select(SelectConfig(catalog=catalog, products=str(tmp_path / "list"), output=str(tmp_path / "part")))
    assert rows(tmp_path / "part", "products") == [row for row in before if row["product_id"] in wanted]
    images = [row for row in rows(Path(catalog), "images") if row["product_id"] in wanted]
    assert rows(tmp_path / "part", "images") == images
    assert (report.listed, report.products, report.images) == (len(wanted), len(wanted), len(images))
    assert (tmp_path / "part/taxonomy.json").read_bytes() == (Path(catalog) / "taxonomy.json").read_bytes()
    assert not (tmp_path / "part/quarantine").exists()


def test_what_the_catalogue_has_not_is_told(catalog: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = [row["product_id"] for row in rows(Path(catalog), "products")[:2]]
    listed = tmp_path / "list.csv"
    listed.write_text("product_id,note\n" + "\n".join([f"{known[0]},a", ",b", "gone,c", f"{known[1]},d"]) + "\n")
    call = ["select", "--catalog", catalog, "--products", str(listed), "--output", str(tmp_path / "part")]
    assert main(call) == 3
    assert "2 of 4 listed products" in capsys.readouterr().out
    refused = {row["error_code"]: row for row in rows(tmp_path / "part", "quarantine")}
    assert refused.keys() == {"unknown_product", "missing_product_id"}
    assert refused["unknown_product"]["product_id"] == "gone"
    assert "list.csv, line 4: the catalogue has no product 'gone'" in refused["unknown_product"]["message"]
    counts = json.loads((tmp_path / "part/run.json").read_text())["counts"]
    assert counts["listed"] == counts["products"] + sum(counts["quarantined"].values()) == 4


def test_a_product_of_several_rows_is_one(tmp_path: Path) -> None:
    (tmp_path / "shop/products").mkdir(parents=True)
    listed = [("twice", "a"), ("once", "b"), ("twice", "c"), ("other", "d"), ("other", "e")]
    for number, part in enumerate((listed[:3], [*listed[3:], ("twice", "f")])):  # within a batch, and in a later one
        ids, titles = zip(*part, strict=True)
        pq.write_table(pa.table({"product_id": ids, "title": titles}), tmp_path / f"shop/products/{number}.parquet")
    (tmp_path / "list.csv").write_text("product_id\nonce\ntwice\n")
    config = SelectConfig(
        catalog=str(tmp_path / "shop"), products=str(tmp_path / "list.csv"), output=str(tmp_path / "part")
    )
    report = select(config)
    assert sorted((row["product_id"], row["title"]) for row in rows(tmp_path / "part", "products")) == [
        ("once", "b"), ("twice", "a"),
    ]  # fmt: skip
    refused = rows(tmp_path / "part", "quarantine")
    assert [(row["product_id"], row["error_code"]) for row in refused] == [("twice", "duplicate_product")] * 2
    assert "'twice' has 3 rows in the products table" in refused[0]["message"]
    counts = json.loads((tmp_path / "part/run.json").read_text())["counts"]
    assert counts["listed"] == report.listed == counts["products"] + sum(counts["quarantined"].values()) == 4


def test_mistakes(catalog: str, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("product_id\nnobody's\n")
    config = SelectConfig(catalog=catalog, products=str(listed), output=str(tmp_path / "part"))
    with pytest.raises(CatalogError, match="none of its 1 products is in the catalogue"):
        select(config)
    assert not (tmp_path / "part/products").exists()
    listed.write_text("id\nnobody's\n")
    with pytest.raises(CatalogError, match=r"no known column in \['id'\]; expected some of product_id"):
        select(config)
    listed.write_text("product_id\n")
    with pytest.raises(CatalogError, match="no row names a product"):
        select(config)
    for name, error in (("none.csv", StorageError), ("none", ConfigError), ("list.txt", ConfigError)):
        (tmp_path / "list.txt").write_text("")
        with pytest.raises(error, match=name):
            select(SelectConfig(catalog=catalog, products=str(tmp_path / name), output=str(tmp_path / "part")))
    with pytest.raises(OutputError, match="already holds a catalogue"):
        select(SelectConfig(catalog=catalog, products=str(listed), output=catalog))
    pictures = tmp_path / "shop" / "images"
    pictures.mkdir(parents=True)
    (pictures / "a.jpg").write_bytes(b"somebody's picture")
    for command in ("select", "relabel"):
        flag = "--products" if command == "select" else "--corrections"
        call = [command, "--catalog", catalog, flag, str(listed), "--output", str(tmp_path / "shop")]
        assert main(call) == 2
    assert (pictures / "a.jpg").exists()


def test_lists_of_other_kinds(catalog: str, tmp_path: Path) -> None:
    products = pa.table({"product_id": pa.array([0, None, 7], pa.int64())})
    pq.write_table(products, tmp_path / "list.parquet")
    config = SelectConfig(catalog=catalog, products=str(tmp_path / "list.parquet"), output=str(tmp_path / "part"))
    with pytest.raises(CatalogError, match="none of its 2 products"):  # 0 is a number, too
        select(config)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    pq.write_table(products, mixed / "list.parquet")
    (mixed / "README.md").write_text("the products of the spring sale")
    with pytest.raises(CatalogError, match="none of its 2 products"):
        select(SelectConfig(catalog=catalog, products=str(mixed), output=str(tmp_path / "part")))
    (mixed / "more.parquet").write_text("product_id\n1\n")
    with pytest.raises(CatalogError, match=r"mixed/more\.parquet: cannot be read as Parquet"):
        select(SelectConfig(catalog=catalog, products=str(mixed), output=str(tmp_path / "part")))
