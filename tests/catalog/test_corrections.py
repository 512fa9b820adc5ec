import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog.corrections import RelabelConfig, RelabelReport, relabel
from atlas_ray.catalog.split import SplitRule, parse_shares, side_of
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, ConfigError, OutputError
from atlas_ray.schemas import CATEGORY_PATH, IMAGES, PRODUCTS, QUARANTINE, image_ids
from atlas_ray.taxonomy import Taxonomy, read_taxonomy
from tests.support.parts import rows, scored_run

SHARES = parse_shares("65/5/30")
A, B, C = ["Men", "Shirts"], ["Men", "Shoes"], ["Women", "Sarees"]
IDS = ["=1+1", "b", "c", "'d", "\te\r\n<b>", "untouched", "nobody's"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A catalogue in two parts, of which all but the first product are labelled, and one is not split."""
    folder = tmp_path / "catalog"
    labels = [None, A, A, B, None, C, C]
    splits = [None, "train", "test", None, None, "val", "train"]
    items = [
        {"product_id": name, "title": name, "category_path": path, "split": split, "image_uris": [f"/{name}"]}
        for name, path, split in zip(IDS, labels, splits, strict=True)
    ]
    for table in ("products", "images"):
        (folder / table).mkdir(parents=True)
    for part in (0, 1):
        table = pa.Table.from_pylist(items[part::2], schema=PRODUCTS)
        pq.write_table(table, folder / "products" / f"{part}.parquet")
    images = pa.table([image_ids(IDS, IDS), IDS, IDS, *[[None] * len(IDS)] * 4], schema=IMAGES)
    pq.write_table(images, folder / "images" / "0.parquet")
    taxonomy = Taxonomy([tuple(path) for path in (A, B, C)], name="small")
    (folder / "taxonomy.json").write_text(taxonomy.to_json())
    return folder


def written(path: Path, cells: list[tuple[str, str]]) -> str:
    """Write corrections as somebody would by hand."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [("product_id", "note", "corrected_category_path"), *((a, "", b) for a, b in cells)]
        )
    return str(path)


def relabelled(catalog: Path, corrections: str, **settings: Any) -> RelabelReport:
    output = str(catalog.parent / "new")
    return relabel(RelabelConfig(catalog=str(catalog), corrections=corrections, output=output, **settings))


def test_a_queue_that_a_person_filled(small: Path, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", [{"product_id": name, "category_path": A, "probability": 0.5} for name in IDS])
    assert main(["review", "--run", run, "--output", str(tmp_path / "review")]) == 0
    queue = tmp_path / "review" / "queue.csv"
    with queue.open(encoding="utf-8-sig", newline="") as stream:
        cells = list(csv.DictReader(stream))
    said = {
        "=1+1": "Men > Shirts",
        "b": " Women>Sarees ",
        "c": "Men > Shirts",
        "'d": "Men > Shoes",
        "\te\r\n<b>": "Women > Sarees",
    }
    for row in cells:
        plain = {"'=1+1": "=1+1", "''d": "'d", "'\te\r\n<b>": "\te\r\n<b>"}.get(row["product_id"], row["product_id"])
        row["corrected_category_path"] = said.get(plain, "")
    with queue.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)

    report = relabelled(small, str(queue))
    assert report.outcomes == {"labelled": 2, "relabelled": 1, "confirmed": 2}
    assert (report.corrections, report.empty, report.quarantined_fraction) == (5, 2, 0)
    assert report.splits == {"train": 2, "val": 1, "test": 1, "none": 1}
    before, after = ({row["product_id"]: row for row in rows(folder, "products")} for folder in (small, report.output))
    labels = {name: (after[name]["category_path"], after[name]["split"]) for name in IDS}
    assert labels == {
        "=1+1": (A, side_of("=1+1", SHARES, 0)), "b": (C, "train"), "c": (A, "test"),
        "'d": (B, None),  # it had a label and no split: kept out of all of them
        "\te\r\n<b>": (C, side_of("\te\r\n<b>", SHARES, 0)),
        "untouched": (C, "val"), "nobody's": (C, "train"),
    }  # fmt: skip
    for name in IDS:
        changed = {"category_path": None, "split": None}
        assert before[name] | changed == after[name] | changed
    assert after["untouched"] == before["untouched"]
    assert pq.read_table(f"{report.output}/products").schema.equals(PRODUCTS)
    assert rows(report.output, "images") == rows(small, "images")
    assert read_taxonomy(f"{report.output}/taxonomy.json") == read_taxonomy(str(small / "taxonomy.json"))
    assert rows(report.output, "quarantine") == []


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("begin", ["\ufeff", "", "sep=@\n", '\ufeff"sep=@";;;\r\n', "\n;;;\n"])
def test_a_queue_that_excel_saved(small: Path, tmp_path: Path, separator: str, begin: str) -> None:
    lines = [
        ["product_id", "probability", "note", "corrected_category_path", "", ""],
        ["'=1+1", "0,5", 'a "word"; b, c', "Women > Sarees", "", ""],
        ["c", "0,25", "", "", "", ""],
        ["", "", "", "", "", ""],
        ["untouched", "1"],  # the last cells of rows that have none are left out
        ["b", "1", "two\nlines", "Men > Shoes", "", "", ""],
        ["", "", "", ""],
    ]
    with (tmp_path / "queue.csv").open("w", newline="", encoding="utf-8") as stream:
        stream.write(begin.replace("@", separator))
        csv.writer(stream, delimiter=separator).writerows(lines)
    report = relabelled(small, str(tmp_path / "queue.csv"))
    assert (report.corrections, report.empty, report.quarantined.total()) == (2, 2, 0)
    labels = {row["product_id"]: row["category_path"] for row in rows(report.output, "products")}
    assert (labels["=1+1"], labels["b"]) == (C, B)


def test_what_cannot_be_taken_over(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [
        ("b", "Men > Shoes"),
        ("stranger", "Men > Shoes"),
        ("c", "Men"),
        ("'d", "Men > > Shoes"),
        ("", "Men > Shoes"),
    ]
    file = written(tmp_path / "c.csv", [*cells, ("b", "Men > Shoes"), ("untouched", " ")])
    output = str(tmp_path / "new")
    command = ["relabel", "--catalog", str(small), "--corrections", file, "--output", output]
    assert main(command) == 3
    said = capsys.readouterr()
    assert "6 corrections: 1 relabelled; by split: train 1" in said.out
    assert "66.7% of the corrections are in quarantine" in said.err
    found = pq.read_table(f"{output}/quarantine")
    assert found.schema.equals(QUARANTINE)
    codes = {row["error_code"]: (row["product_id"], row["message"].partition(", ")[2]) for row in found.to_pylist()}
    assert codes == {
        "unknown_product": ("stranger", "line 3: the catalogue has no product 'stranger'"),
        "unknown_category": ("c", "line 4: 'Men' is no leaf of the taxonomy 'small'"),
        "bad_category_path": ("'d", "line 5: empty or padded name '' in the path 'Men >  > Shoes'"),
        "missing_product_id": (None, "line 6: the row has no product id"),
    }
    assert {row["product_id"]: row["category_path"] for row in rows(output, "products")}["c"] == A
    assert main(command) == 2
    assert "already holds a catalogue" in capsys.readouterr().err


def test_corrections_as_a_person_writes_them(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [("=1+1", "women/sarees"), ("b", "MEN -> SHOES"), ("c", "Men » Shirts >"), ("'d", "Mens > Shoe")]
    file = written(tmp_path / "c.csv", cells)
    output = str(tmp_path / "new")
    assert main(["relabel", "--catalog", str(small), "--corrections", file, "--output", output]) == 3
    labels = {row["product_id"]: row["category_path"] for row in rows(output, "products")}
    assert (labels["=1+1"], labels["b"], labels["c"], labels["'d"]) == (C, B, A, B)
    shown = capsys.readouterr().out
    assert "line 5: 'Mens > Shoe' is no leaf of the taxonomy 'small'; did you mean 'Men > Shoes'?" in shown


def test_a_first_label_falls_on_the_side_of_its_id(small: Path, tmp_path: Path) -> None:
    """Not always in train: the next import, which sees the label, gives the same side."""
    SplitRule(shares="0.001/0/1", seed=3).write(str(small))
    assert side_of("=1+1", parse_shares("0.001/0/1"), 3) == "test"
    report = relabelled(small, written(tmp_path / "c.csv", [("=1+1", "Men > Shirts"), ("c", "Men > Shoes")]))
    assert report.splits == {"test": 2}
    assert SplitRule.of(report.output) == SplitRule(shares="0.001/0/1", seed=3)


def test_two_corrections_of_one_product(small: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "c.csv", [("b", "Men > Shoes"), ("c", ""), ("b", "Women > Sarees")])
    with pytest.raises(CatalogError, match=r"'b' is 'Men > Shoes' in line 2 and 'Women > Sarees' in line 4"):
        relabelled(small, file)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", [CATEGORY_PATH, pa.string()])
def test_parquet_with_lists_or_text(small: Path, tmp_path: Path, kind: pa.DataType) -> None:
    path: Any = C if kind == CATEGORY_PATH else "Women > Sarees"
    table = pa.table({"product_id": ["=1+1", "c"], "corrected_category_path": pa.array([path, None], kind)})
    pq.write_table(table, tmp_path / "c.parquet")
    report = relabelled(small, str(tmp_path / "c.parquet"))
    assert (report.outcomes["labelled"], report.empty) == (1, 1)
    assert {row["product_id"]: row["category_path"] for row in rows(report.output, "products")}["=1+1"] == C


def test_another_taxonomy_opens_new_paths(small: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "c.csv", [("b", "Men > Hats")])
    with (tmp_path / "wider.csv").open("w") as stream:
        stream.write("category_path\nMen > Hats\nMen > Shirts\nMen > Shoes\nWomen > Sarees\n")
    (small / "taxonomy.json").unlink()
    with pytest.raises(CatalogError, match=r"holds no taxonomy\.json"):
        relabelled(small, file)
    report = relabelled(small, file, taxonomy=str(tmp_path / "wider.csv"))
    assert report.outcomes["relabelled"] == 1
    assert ("Men", "Hats") in read_taxonomy(f"{report.output}/taxonomy.json").leaf_set


def test_files_that_are_no_corrections(small: Path, tmp_path: Path) -> None:
    for header, reason in (
        ("id|path", r"c\.csv, line 1: no known column in \['id', 'path'\]; expected some of product_id, corrected_"),
        ("product_id;path", r"c\.csv: no column 'corrected_category_path'; it has \['product_id', 'path'\]"),
        ("\ufeffgr\u00f6\u00dfe;path", r"no known column in \['gr\u00f6\u00dfe', 'path'\]"),
    ):
        encoding = "latin-1" if "\u00f6" in header else "utf-8"
        (tmp_path / "c.csv").write_text(f"{header.lstrip(chr(0xFEFF))}\nb;Men > Shoes\n", encoding=encoding)
        with pytest.raises(CatalogError, match=reason):
            relabelled(small, str(tmp_path / "c.csv"))
    with pytest.raises(CatalogError, match="no row has a corrected_category_path"):
        relabelled(small, written(tmp_path / "e.csv", [("b", "")]))
    (tmp_path / "c.parquet").write_text("nothing")
    with pytest.raises(CatalogError, match="cannot be read as Parquet"):
        relabelled(small, str(tmp_path / "c.parquet"))
    with pytest.raises(ConfigError, match=r"expected a \.csv, \.tsv or \.parquet file"):
        relabelled(small, str(tmp_path / "c.xlsx"))
    with pytest.raises(OutputError, match="already holds a catalogue"):
        relabel(RelabelConfig(catalog=str(small), corrections="c.csv", output=str(small)))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("product_id", "path", "code"),
    [
        (1.5, ["Men", "Shoes"], "bad_value"), (True, ["Men", "Shoes"], "bad_value"), ("b", ["Men", None], "bad_value"),
        (None, ["Men", "Shoes"], "missing_product_id"), ("b", ["Men", ""], "bad_value"),
        (7, ["Men", "Shoes"], "unknown_product"),
    ],
)  # fmt: skip
def test_a_correction_is_read_by_its_types(small: Path, tmp_path: Path, product_id: Any, path: Any, code: str) -> None:
    paths = pa.array([path], pa.list_(pa.string()))
    table = pa.table({"product_id": pa.array([product_id]), "corrected_category_path": paths})
    pq.write_table(table, tmp_path / "one.parquet")
    report = relabelled(small, str(tmp_path / "one.parquet"))
    assert report.quarantined == {code: 1}


def test_a_list_saved_elsewhere_names_the_same_products(small: Path, tmp_path: Path) -> None:
    text = "Product ID;Corrected Category Path\r\nb;Women > Sarees\r\n"
    (tmp_path / "c.csv").write_bytes(text.encode("utf-16"))
    assert relabelled(small, str(tmp_path / "c.csv")).outcomes.total() == 1
