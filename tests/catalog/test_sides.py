import csv
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog.corrections import RelabelConfig, relabel
from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog
from atlas_ray.catalog.selection import SelectConfig, select
from atlas_ray.catalog.split import SplitRule
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError

Row = tuple[str, str, str]
"""Product id, category path, split."""
HEAD = ("id", "image", "category", "split")


def imported(folder: Path, rows: Sequence[Row], **settings: Any) -> ImportReport:
    folder.mkdir(parents=True)
    with (folder / "shop.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEAD)
        writer.writerows((name, f"{name}.jpg", path, split) for name, path, split in rows)
    return import_catalog(ImportConfig(source=str(folder / "shop.csv"), output=str(folder / "catalog"), **settings))


def splits(report: ImportReport | str) -> dict[str, str | None]:
    folder = report if isinstance(report, str) else report.output
    return {row["product_id"]: row["split"] for row in pq.read_table(f"{folder}/products").to_pylist()}


def shop(numbers: Sequence[int]) -> list[Row]:
    return [(f"sku-{number}", f"Top > Leaf {number % 13}", "") for number in numbers]


def a_week_later() -> tuple[list[Row], list[Row]]:
    """1,200 products, and of the next week 1,250: 100 are new, 50 gone, and the rows in another order."""
    draws = random.Random(7)
    first = shop(range(1200))
    second = [*draws.sample(first, 1150), *shop(range(1200, 1300))]
    draws.shuffle(second)
    return first, second


def test_no_product_changes_side_a_week_later(tmp_path: Path) -> None:
    first, second = a_week_later()
    assert len(second) == 1250
    before, after = (imported(tmp_path / name, rows) for name, rows in (("first", first), ("second", second)))
    old, new = splits(before), splits(after)
    assert len(old.keys() & new.keys()) == 1150
    assert {name for name in old.keys() & new.keys() if old[name] != new[name]} == set()
    for name, share in (("train", 0.65), ("val", 0.05), ("test", 0.30)):
        assert abs(after.splits[name] - share * 1250) < 4 * (share * (1 - share) * 1250) ** 0.5
    assert after.split_origins == {"drawn": 1250}


def test_exact_shares_are_kept_by_naming_the_earlier_catalogue(tmp_path: Path) -> None:
    first, second = a_week_later()
    old = splits(imported(tmp_path / "first", first, split_exact=True))
    alone = splits(imported(tmp_path / "alone", second, split_exact=True))
    assert sum(old[name] == "train" and side == "test" for name, side in alone.items() if name in old) > 50  # the leak
    report = imported(tmp_path / "second", second, split_exact=True, previous=(str(tmp_path / "first" / "catalog"),))
    new = splits(report)
    assert {name for name in old.keys() & new.keys() if old[name] != new[name]} == set()
    assert report.split_origins == {"previous": 1150, "drawn": 100}
    assert len({new[name] for name in new.keys() - old.keys()}) == 3  # new products go to all sides


def test_a_label_moves_no_product(tmp_path: Path) -> None:
    rows = shop(range(400))
    relabelled = [(name, f"Other > {path}", split) for name, path, split in rows]
    assert splits(imported(tmp_path / "a", rows)) == splits(imported(tmp_path / "b", relabelled))
    other = splits(imported(tmp_path / "c", rows, seed=1))
    assert other != splits(str(tmp_path / "a" / "catalog"))
    assert Counter(splits(imported(tmp_path / "d", rows, split="1/0/0")).values()) == {"train": 400}


@pytest.mark.long
def test_shares_and_seed_go_on_from_the_earlier_catalogue(tmp_path: Path) -> None:
    imported(tmp_path / "a", shop(range(50)), split="20/40/40", seed=5)
    previous = (str(tmp_path / "a" / "catalog"),)
    report = imported(tmp_path / "b", shop(range(600)), previous=previous)
    assert splits(report) == splits(imported(tmp_path / "c", shop(range(600)), split="20/40/40", seed=5))
    assert SplitRule.of(report.output) == SplitRule(shares="20/40/40", seed=5, previous=previous)


def test_what_the_source_says_wins_and_a_contradiction_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path / "a", [("1", "A > B", "train"), ("2", "A > B", "test"), ("3", "A > B", "val"), ("4", "", "")])
    rows = [("1", "A > B", "test"), ("2", "A > B", "test"), ("3", "A > B", ""), ("4", "A > B", ""), ("5", "A > B", "")]
    (tmp_path / "b").mkdir()
    with (tmp_path / "b" / "shop.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEAD, *((name, "p.jpg", path, split) for name, path, split in rows)])
    output = str(tmp_path / "b" / "catalog")
    command = ["import", str(tmp_path / "b" / "shop.csv"), "--output", output]
    assert main([*command, "--previous", str(tmp_path / "a" / "catalog")]) == 0
    said = capsys.readouterr().out
    found = splits(output)
    assert (found["1"], found["2"], found["3"]) == ("test", "test", "val")
    assert "1 products keep the split of --previous; 2 source, 2 drawn" in said
    assert "1 products have another split in the source than in --previous; the source's counts" in said


def test_products_without_a_split_stay_without_one(tmp_path: Path) -> None:
    """One that had a label was left out on purpose; one that has lost its label has its side when it comes back."""
    report = imported(tmp_path / "a", [("1", "A > B", "train"), ("2", "A > B", "test")])
    table = pq.read_table(f"{report.output}/products")
    kept_out = table.set_column(table.column_names.index("split"), table.field("split"), [[None, "test"]])
    pq.write_table(kept_out, f"{report.output}/products/part-00000.parquet")
    second = imported(tmp_path / "b", [("1", "A > B", ""), ("2", "", "")], previous=(report.output,))
    assert splits(second) == {"1": None, "2": "test"}
    assert second.splits == {"none": 1}
    third = imported(tmp_path / "c", [("2", "A > C", ""), ("1", "A > B", "")], previous=(second.output,))
    assert splits(third) == {"1": None, "2": "test"}


def test_several_earlier_catalogues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path / "a", [("1", "A > B", "train"), ("2", "A > B", "test")])
    imported(tmp_path / "b", [("2", "A > B", "val"), ("3", "A > B", "test")])
    previous = tuple(str(tmp_path / name / "catalog") for name in "ab")
    report = imported(tmp_path / "c", [(name, "A > B", "") for name in "321"], previous=previous)
    assert splits(report) == {"1": "train", "2": "val", "3": "test"}
    assert report.split_origins == {"previous": 3, "previous_disagree": 1}
    for missing in ("nowhere", "a"):
        with pytest.raises(CatalogError, match=f"{missing}: no products table.*--previous names a catalogue"):
            imported(tmp_path / f"out-{missing}", [("1", "A", "")], previous=(str(tmp_path / missing),))
    assert not capsys.readouterr().err


def test_copies_of_a_catalogue_keep_splits_and_rule(tmp_path: Path) -> None:
    report = imported(tmp_path / "a", [*shop(range(60)), ("unlabelled", "", "")], split="50/0/50", seed=9)
    before, rule = splits(report), SplitRule(shares="50/0/50", seed=9)
    (tmp_path / "list.csv").write_text("product_id\n" + "".join(f"sku-{number}\n" for number in range(30)))
    output = str(tmp_path / "selected")
    select(SelectConfig(catalog=report.output, products=str(tmp_path / "list.csv"), output=output))
    assert splits(output) == {f"sku-{number}": before[f"sku-{number}"] for number in range(30)}
    assert SplitRule.of(output) == rule
    corrected = "".join(f"sku-{number},Top > Leaf 1\n" for number in range(60)) + "unlabelled,Top > Leaf 1\n"
    (tmp_path / "corrections.csv").write_text("product_id,corrected_category_path\n" + corrected)
    output = str(tmp_path / "relabelled")
    relabel(RelabelConfig(catalog=report.output, corrections=str(tmp_path / "corrections.csv"), output=output))
    assert splits(output) == before | {"unlabelled": rule.side_of("unlabelled")}
    again = imported(tmp_path / "again", [("unlabelled", "Top > Leaf 1", "")], split="50/0/50", seed=9)
    assert splits(again)["unlabelled"] == splits(output)["unlabelled"]


def test_paths_that_are_only_tested_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("1", "A > Trained", "train"), ("2", "A > Tested", "test"), ("3", "A > Tested", "test")]
    report = imported(tmp_path / "a", rows)
    assert report.untrained == [(("A", "Tested"), 2)]
    assert main(["import", str(tmp_path / "a" / "shop.csv"), "--output", str(tmp_path / "out")]) == 0
    assert "1 category paths without a product in train" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"shares": "x", "previous": []}', '{"previous": 3}', '{"other": 1}'])
def test_a_damaged_rule_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(CatalogError, match=r"split\.json is damaged"):
        SplitRule.of(str(tmp_path))
