"""A catalogue that is updated: products come, change and go; what a person said, and who is in which split, stays."""

import csv
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog import shuffling
from atlas_ray.catalog.corrections import RelabelConfig, relabel
from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog
from atlas_ray.catalog.selection import SelectConfig, select
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, ConfigError, OutputError, RowError
from atlas_ray.formats.tables import current
from atlas_ray.formats.values import flag
from atlas_ray.runtime.tables import count_labels, open_catalog
from atlas_ray.taxonomy import Taxonomy

HEADER = ("id", "title", "price", "image", "category")
FIRST = [
    (f"p{number}", f"T {number}", "5", f"{number}.jpg", "A > B" if number % 2 else "A > C") for number in range(40)
]


def run(folder: Path, rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = HEADER, **fields: Any) -> ImportReport:
    with (folder / "shop.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return import_catalog(ImportConfig(source=str(folder / "shop.csv"), output=str(folder / "shop"), **fields))


def products(catalog: Path | str) -> dict[str, dict[str, Any]]:
    return {row["product_id"]: row for row in open_catalog(str(catalog), may_be_empty=True).products.read().to_pylist()}


def test_products_come_change_and_go(tmp_path: Path) -> None:
    run(tmp_path, FIRST)
    before = products(tmp_path / "shop")
    rows = [(*row, "") for row in FIRST[:30]]
    rows[3] = ("p3", "New title", "", "3.jpg", "", "")
    rows[4] = ("p4", "T 4", "5", "other.jpg", "A > C", "")
    rows += [("p35", "", "", "", "", "yes"), ("new", "New", "7", "n.jpg", "A > B", "0"), ("gone", "", "", "", "", "1")]
    report = run(tmp_path, rows, (*HEADER, "deleted"), update=True)
    assert report.changes == {"added": 1, "changed": 2, "same": 28, "absent": 9, "removed": 1}
    assert (report.products, report.deleted, report.quarantined) == (40, 2, {})
    after = products(tmp_path / "shop")
    assert after.keys() == before.keys() - {"p35"} | {"new"}
    assert (after["p3"]["title"], after["p3"]["price"], after["p3"]["category_path"]) == ("New title", 5, ["A", "B"])
    assert [Path(uri).name for uri in after["p4"]["image_uris"]] == ["other.jpg"]
    assert all(after[name]["split"] == before[name]["split"] for name in before if name != "p35")
    assert after["new"]["split"] in ("train", "val", "test")
    unchanged = before.keys() - {"p3", "p4", "p35"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    pictures = open_catalog(str(tmp_path / "shop")).images.read().to_pylist()
    assert sorted(row["image_uri"] for row in pictures) == sorted(
        uri for row in after.values() for uri in row["image_uris"]
    )
    counts = json.loads(Path(report.output, "run.json").read_text())["counts"]
    assert counts["changes"] == report.changes


def test_a_full_source_removes_what_it_does_not_name(tmp_path: Path) -> None:
    run(tmp_path, FIRST)
    report = run(tmp_path, FIRST[10:], update=True, full=True)
    assert report.changes == {"added": 0, "changed": 0, "same": 30, "absent": 0, "removed": 10}
    assert products(tmp_path / "shop").keys() == {row[0] for row in FIRST[10:]}


def test_earlier_versions_stay_readable(tmp_path: Path) -> None:
    for number in (10, 20, 30):
        run(tmp_path, FIRST[:number], update=number > 10)
    shop = tmp_path / "shop"
    assert current(str(shop)) == str(shop / "versions" / "00002")
    sizes = [len(products(shop / "versions" / f"0000{number}")) for number in range(3)]
    assert sizes == [10, 20, 30]
    assert len(products(shop)) == 30
    assert count_labels(str(shop)).total() == 30
    selected = tmp_path / "some.csv"
    selected.write_text("product_id\np1\np25\n")
    select(SelectConfig(catalog=str(shop), products=str(selected), output=str(tmp_path / "some")))
    assert products(tmp_path / "some").keys() == {"p1", "p25"}
    next_one = import_catalog(
        ImportConfig(source=str(tmp_path / "shop.csv"), output=str(tmp_path / "other"), previous=(str(shop),))
    )
    assert next_one.split_origins == {"previous": 30}


def test_a_corrected_label_stays(tmp_path: Path) -> None:
    run(tmp_path, FIRST)
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("product_id,corrected_category_path\np1,A > C\np2,A > B\n")
    shop = tmp_path / "corrected"
    relabel(RelabelConfig(catalog=str(tmp_path / "shop"), corrections=str(corrections), output=str(shop)))
    for _ in range(2):
        update = ImportConfig(source=str(tmp_path / "shop.csv"), output=str(shop), update=True)
        report = import_catalog(update)
        assert report.changes["added"] == 0
        found = products(shop)
        assert [found[name]["category_path"][1] for name in ("p1", "p2", "p3", "p4")] == ["C", "B", "B", "C"]


def test_a_picture_that_stays_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    run(tmp_path, FIRST[:2])
    (file,) = (tmp_path / "shop" / "images").iterdir()
    images = pq.read_table(file)
    images = images.set_column(3, images.schema.field("sha256"), [["x" * 64] * 2])
    pq.write_table(images, file)
    run(tmp_path, [FIRST[0], ("p1", "", "", "1.jpg,more.jpg", "")], update=True)
    found = {Path(row["image_uri"]).name: row["sha256"] for row in open_catalog(
        str(tmp_path / "shop"), images=("sha256",)).images.read().to_pylist()}  # fmt: skip
    assert found == {"0.jpg": "x" * 64, "1.jpg": "x" * 64, "more.jpg": None}


def test_the_taxonomy_of_before_still_counts(tmp_path: Path) -> None:
    run(tmp_path, FIRST, taxonomy=Taxonomy([("A", "B"), ("A", "C")], name="shop"))
    report = run(tmp_path, [("x", "T", "", "x.jpg", "Z"), ("y", "T", "", "y.jpg", "A > B")], update=True)
    assert report.quarantined == {"unknown_category": 1}
    free = tmp_path / "free"
    free.mkdir()
    run(free, FIRST)
    report = run(free, [("x", "T", "", "x.jpg", "Z")], update=True)
    assert report.taxonomy is not None
    assert set(report.taxonomy.leaves) == {("A", "B"), ("A", "C"), ("Z",)}
    assert json.loads((free / "shop" / "taxonomy.json").read_text())["name"]


def test_a_stopped_update_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, FIRST)
    with monkeypatch.context() as patch:
        patch.setattr("atlas_ray.catalog.importer.publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, FIRST[:3], update=True, full=True)
    assert len(products(tmp_path / "shop")) == 40
    with pytest.raises(OutputError, match="already holds"):
        run(tmp_path, FIRST[:3], update=True, full=True)


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OutputError, match="holds no catalogue"):
        run(tmp_path, FIRST, update=True)
    with pytest.raises(ConfigError, match="--full goes with --into"):
        run(tmp_path, FIRST, full=True)
    run(tmp_path, FIRST)
    run(tmp_path, FIRST, update=True)
    assert main(["import", str(tmp_path / "shop.csv"), "--into", str(tmp_path / "shop"), "--full"]) == 0
    assert "40 the same" in capsys.readouterr().out
    for damage in ("{", '{"version": "../../etc"}', '{"version": 3}'):
        (tmp_path / "shop" / "current.json").write_text(damage)
        with pytest.raises(CatalogError, match="is damaged"):
            products(tmp_path / "shop")


def test_ray_updates_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: None) -> None:
    found = []
    for name, small in (("here", 1 << 30), ("there", 0)):
        monkeypatch.setattr(shuffling, "SMALL_BYTES", small)
        monkeypatch.setattr(shuffling, "PARTITION_ROWS", 10)
        folder = tmp_path / name
        folder.mkdir()
        run(folder, FIRST)
        report = run(folder, [*FIRST[5:], ("new", "New", "7", "n.jpg", "A > B")], update=True, full=True)
        rows = products(folder / "shop")
        for row in rows.values():
            row["image_uris"] = [Path(uri).name for uri in row["image_uris"]]
        found.append((report.changes, report.splits, rows))
    assert found[0] == found[1]


def test_a_whole_source_keeps_products_whose_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for by_ray in (False, True):
        folder = tmp_path / str(by_ray)
        folder.mkdir()
        if by_ray:
            monkeypatch.setattr(shuffling, "SMALL_BYTES", 0)
            monkeypatch.setattr(shuffling, "PARTITION_ROWS", 10)
        run(folder, FIRST)
        before = products(folder / "shop")
        bad = [*FIRST[:-3], ("p38", "T 38", "5", "\x00", "A > B")]  # p37 and p39 are no longer there
        report = run(folder, bad, update=True, full=True)
        assert sum(report.quarantined.values()) == 1
        after = products(folder / "shop")
        assert after.keys() == before.keys() - {"p37", "p39"}
        assert after["p38"] == before["p38"]
        assert (report.changes["absent"], report.changes["removed"]) == (1, 2)


def test_a_whole_source_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path, FIRST)
    bad = [(*row[:3], "\x00", row[4]) for row in FIRST[:20]]
    with pytest.raises(CatalogError, match=r"100\.0% of its rows cannot be used|not one row could be used"):
        run(tmp_path, bad, update=True, full=True)
    with pytest.raises(CatalogError, match=r"50\.0% of its rows cannot be used .* Nothing was changed") as told:
        run(tmp_path, [*bad, *FIRST[20:]], update=True, full=True)
    assert "--max-quarantine-fraction" in str(told.value)
    assert current(str(tmp_path / "shop")) == str(tmp_path / "shop")
    assert len(products(tmp_path / "shop")) == 40
    report = run(tmp_path, [*bad, *FIRST[20:]], update=True, full=True, max_quarantine_fraction=0.6)
    assert (report.changes["absent"], report.changes["removed"]) == (20, 0)


def test_the_paths_of_a_product_are_replaced_together(tmp_path: Path) -> None:
    several = [("a", "T", "5", "a.jpg", "A > B | A > C"), ("b", "T", "5", "b.jpg", "A > B | A > C")]
    run(tmp_path, several, category_separator="|")
    run(tmp_path, [("a", "T", "5", "a.jpg", "A > B"), ("b", "New", "", "", "")], update=True, category_separator="|")
    after = products(tmp_path / "shop")
    assert (after["a"]["category_path"], after["a"]["category_paths"]) == (["A", "B"], None)
    assert (after["b"]["title"], after["b"]["category_path"]) == ("New", ["A", "B"])
    assert after["b"]["category_paths"] == [["A", "B"], ["A", "C"]]


def test_the_last_row_of_a_log_of_changes_counts(tmp_path: Path) -> None:
    run(tmp_path, FIRST)
    log = [
        ("p1", "Old", "5", "1.jpg", "A > B", ""), ("p1", "", "", "", "", "1"),
        ("p1", "Back", "6", "1.jpg", "A > C", "0"), ("p2", "", "", "", "", "1"),
        ("p3", "Gone", "5", "3.jpg", "A > B", "0.0"), ("p3", "", "", "", "", "true"),
        ("x", "New", "5", "x.jpg", "A > B", ""), ("x", "", "", "", "", "yes"),
    ]  # fmt: skip
    report = run(tmp_path, log, (*HEADER, "deleted"), update=True)
    after = products(tmp_path / "shop")
    assert after.keys() == {row[0] for row in FIRST} - {"p2", "p3"}
    assert (after["p1"]["title"], after["p1"]["category_path"]) == ("Back", ["A", "C"])
    assert (report.deleted, report.changes["removed"]) == (7, 2)


@pytest.mark.parametrize("value", [0.0, 1.0, Decimal(1), Decimal("0.0")])
def test_flags_may_be_numbers_as_pandas_writes_them(value: Any) -> None:
    assert flag(value, "deleted") is bool(value)
    for wrong in (0.5, Decimal(2), float("inf")):
        with pytest.raises(RowError, match="expected true or false"):
            flag(wrong, "deleted")
