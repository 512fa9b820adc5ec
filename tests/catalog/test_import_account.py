"""What an import promises of every record: it is in one table, joined, in quarantine or blank, and the exit says so."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from atlas_ray.catalog import outputs, settling
from atlas_ray.catalog.import_account import ImportAccount
from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog
from atlas_ray.catalog.parts import Place
from atlas_ray.catalog.reading import PartReport
from atlas_ray.catalog.settling import Settler, Tally
from atlas_ray.catalog.sources import Source
from atlas_ray.cli.main import main
from atlas_ray.errors import AuditError, CatalogError, ConfigError, OutputError
from tests.catalog.test_import import rows

HEADER = "id,title,price,image,category\n"


def run(source: Path, **fields: Any) -> ImportReport:
    return import_catalog(ImportConfig(source=str(source), output=str(source.parent / "out"), **fields))


def line(number: int, **cells: str) -> str:
    row = {"id": str(number), "title": f"T {number}", "price": "1", "image": f"{number}.jpg", "category": "A > B"}
    return ",".join((row | cells).values()) + "\n"


@pytest.mark.long
def test_a_quote_that_never_closes_costs_a_row(tmp_path: Path) -> None:
    lines = [line(number) for number in range(100_000)]
    lines[10] = '10,"T 10,1,10.jpg,A > B\n'
    (tmp_path / "shop.csv").write_text(HEADER + "".join(lines))
    report = run(tmp_path / "shop.csv")
    assert (report.records, report.products, report.quarantined) == (100_000, 99_999, {"bad_row": 1})
    (bad,) = rows(tmp_path / "out", "quarantine")
    assert "shop.csv, line 12: a quote that opens a cell and is not closed" in bad["message"]
    counts = json.loads((tmp_path / "out" / "run.json").read_text())["counts"]
    assert (counts["records"], counts["products"], counts["joined"], counts["blank"]) == (100_000, 99_999, 0, 0)


@pytest.mark.parametrize("torn", ['10,"T\n', '"10\n', '10,T,"\n'])
def test_a_row_that_is_cut_behind_a_quote_takes_no_other_with_it(tmp_path: Path, torn: str) -> None:
    lines = [line(number) for number in range(20)]
    lines[10] = torn
    lines[15] = lines[15].rstrip("\n") + '"\n'
    (tmp_path / "shop.csv").write_text(HEADER + "".join(lines))
    report = run(tmp_path / "shop.csv")
    assert (report.records, report.products, report.quarantined) == (20, 19, {"bad_row": 1})


def test_every_record_is_counted(tmp_path: Path) -> None:
    text = HEADER + line(1) + "\n,,,,\n" + line(1, image="2.jpg") + line(2, id="") + line(3) + "4\n"
    (tmp_path / "shop.csv").write_text(text)
    report = run(tmp_path / "shop.csv")
    assert (report.records, report.products, report.joined, report.blank) == (7, 2, 1, 2)
    assert report.quarantined == {"missing_product_id": 1, "bad_row": 1}
    assert report.quarantined_fraction == 2 / 5


@pytest.mark.parametrize("lost", ["product", "quarantine", "join"])
def test_a_row_that_comes_to_nothing_fails_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    (tmp_path / "shop.csv").write_text(HEADER + line(1) + line(1, image="2.jpg") + line(2) + line(3, id=""))
    settle = Settler.settle

    def lossy(self: Settler, rows: pa.Table, key: str) -> Tally:
        kept = pc.not_equal(rows["number"], {"product": 4, "join": 3, "quarantine": 5}[lost])
        return settle(self, rows.filter(kept), key)

    monkeypatch.setattr(Settler, "settle", lossy)
    with pytest.raises(AuditError, match="4 records do not balance"):
        run(tmp_path / "shop.csv")
    assert not (tmp_path / "out" / "run.json").exists()
    assert not list((tmp_path / "out" / "products").glob("*"))


def test_lines_balance_too(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(HEADER + line(1))
    source = Source(str(tmp_path / "shop.csv"), "csv", ["id"])
    tally = Tally(said=1, written=Counter(products=1))
    report = PartReport(source.parts()[0], records=1, lines=1, header_lines=1, own_lines=2)
    ImportAccount.of(source, [report], tally).check(tally)
    report.lines = 2
    with pytest.raises(AuditError, match="2 lines do not balance: 3 of headers and records"):
        ImportAccount.of(source, [report], tally).check(tally)


@pytest.mark.parametrize(
    ("rows_lost", "limit", "code"), [(1, None, 3), (1, "0.2", 0), (0, None, 0), (0, "0", 0), (9, "1", 0)]
)
def test_the_exit_tells_of_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows_lost: int, limit: str | None, code: int
) -> None:
    lines = [line(number, id="" if number < rows_lost else str(number)) for number in range(10)]
    (tmp_path / "shop.csv").write_text(HEADER + "".join(lines))
    flags = ["--max-quarantine-fraction", limit] if limit else []
    assert main(["import", str(tmp_path / "shop.csv"), "--output", str(tmp_path / "out"), *flags]) == code
    said = capsys.readouterr()
    assert ("atlas-ray import: 10.0% of the rows are in quarantine, over 5.0%" in said.err) == (code == 3)
    assert (f"quarantined: {rows_lost} of 10 rows" in said.out) == bool(rows_lost)


CAUSES = {
    "separator": (HEADER + "".join(line(n, title=f"T, {n}") for n in range(9)) + line(9), "as many cells as"),
    "id column": ("sku,image\n" + "".join(f",{n}.jpg\n" for n in range(9)) + "9,9.jpg\n", "--map product_id=COLUMN"),
    "picture column": (
        "id,image,foto\n" + "".join(f"{n},,{n}.jpg\n" for n in range(9)) + "9,a.jpg,\n", "--map image_uris=COLUMN"
    ),
    "encoding": (
        "id,image,title\n1,ok.jpg,caf\u00e9\n" + "".join(f"{n},{n}.jpg,\ud800\n" for n in range(2, 9)),
        "read as UTF-8: name its encoding, such as --encoding windows-1252",
    ),
    "folder": ("id,image\n" + "".join(f"{n},../{n}.jpg\n" for n in range(9)) + "9,9.jpg\n", "--image-base"),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_one_cause_of_most_losses_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], cause: str) -> None:
    text, hint = CAUSES[cause]
    data = text.encode("utf-8", "surrogatepass")
    (tmp_path / "shop.csv").write_bytes(data)
    flags = ["--encoding", "utf-8"] if cause == "encoding" else []
    assert main(["import", str(tmp_path / "shop.csv"), "--output", str(tmp_path / "out"), *flags]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert hint in said
    assert "such as line " in said


def test_several_causes_give_no_hint(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(HEADER + line(1) + line(2, id="") + "3\n" + line(4, category="A > > B"))
    report = run(tmp_path / "shop.csv")
    assert report.hint is None
    assert report.examples.keys() == report.quarantined.keys() == {"missing_product_id", "bad_row", "bad_category_path"}
    assert report.examples["bad_row"] == "line 4: 1 cells where the header has 5"


@pytest.mark.parametrize("text", [HEADER + ",,,,\n" + line(1, id=""), HEADER + 'x,"\n' + line(2, id="")])
def test_a_failed_import_leaves_nothing_that_the_next_trusts(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out"
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(CatalogError, match=r"not one row could be used .*such as line .*see .*out/quarantine"):
        run(tmp_path / "bad.csv")
    assert rows(out, "quarantine")
    (out / "notes.txt").write_text("mine")
    (tmp_path / "good.csv").write_text(HEADER + line(1, category=""))
    assert run(tmp_path / "good.csv").quarantined == {}
    assert not list((out / "quarantine").glob("*"))
    assert (out / "notes.txt").read_text() == "mine"
    assert sorted(file.name for file in out.iterdir() if file.is_file()) == ["notes.txt", "run.json", "split.json"]


def test_what_a_killed_import_left_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "PART_ROWS", 2)
    (tmp_path / "shop.csv").write_text(HEADER + "".join(line(n, id=str(n) if n % 2 else "") for n in range(20)))
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "_delete", lambda *_: None)
        patch.setattr(ImportAccount, "check", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "shop.csv")
    assert len(rows(tmp_path / "out", "products")) == len(rows(tmp_path / "out", "quarantine")) == 10
    (tmp_path / "shop.csv").write_text(HEADER + line(1))
    run(tmp_path / "shop.csv")
    assert [row["product_id"] for row in rows(tmp_path / "out", "products")] == ["1"]
    assert len(rows(tmp_path / "out", "images")) == 1
    assert not list((tmp_path / "out" / "quarantine").glob("*"))


@pytest.mark.parametrize("name", ["products/part-00000.parquet", "quarantine/x.parquet", "images/a.jpg", "run.json"])
def test_what_no_import_left_is_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / "shop.csv").write_text(HEADER + line(1))
    (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(OutputError, match="already holds a catalogue"):
        run(tmp_path / "shop.csv")
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_leftovers_in_s3(tmp_path: Path, s3: str) -> None:
    output = f"{s3}/half/out"
    (tmp_path / "bad.csv").write_text(HEADER + line(1, id=""))
    (tmp_path / "good.csv").write_text(HEADER + line(1))
    with pytest.raises(CatalogError):
        import_catalog(ImportConfig(source=str(tmp_path / "bad.csv"), output=output))
    import_catalog(ImportConfig(source=str(tmp_path / "good.csv"), output=output))
    found = boto3.client("s3").list_objects_v2(Bucket="shop", Prefix="half/out/")["Contents"]
    names = sorted(entry["Key"].removeprefix("half/out/") for entry in found if not entry["Key"].endswith("/"))
    assert [re.sub("-[0-9a-f]{16}", "", name) for name in names] == [
        "images/part-00000.parquet", "products/part-00000.parquet", "run.json", "split.json", "taxonomy.json",
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", HEADER, r"a header \(id, title, price, image, category\) and no row below it"),
        ("a.csv", "\ufeff" + HEADER.replace(",", ";") + "\n;;;;\n", "a header .* and no row below it"),
        ("a.tsv", HEADER.replace(",", "\t").rstrip(), "a header .* and no row below it"),
        ("a.jsonl", "", "an empty file"),
        ("a.jsonl", "\n \n", "an empty file"),
        ("a.json", " \n", "an empty file"),
        ("a.json", "[]", "no 'images' in it|no list of products|an empty file"),
        ("a.csv.gz", "\x1f\x00\x00", "no known column"),
        ("a.xlsx", "x", "a damaged workbook"),
        ("a.XLS", "x", "a damaged workbook"),
        ("a.ods", "x", "a damaged workbook"),
        ("a.zip", "x", "unpack it first"),
        ("a.csv", "PK\x03\x04", "save its sheet as a CSV in UTF-8"),
        ("feed.XML", "<rss/>", "no <item> and no <entry> in it"),
        ("feed.txt", '<?xml version="1.0"?><rss/>', "no <item> and no <entry> in it"),
        ("feed.csv", '\ufeff<?xml version="1.0"?><rss/>', "an XML file, not a text"),
        ("a.parquet", "x", "cannot be read as Parquet"),
        ("part-0", "PAR1", "a Parquet file, not a text"),
        ("a.txt", "x", "cannot tell its format; name one of"),
    ],
)
def test_a_source_without_rows_says_so(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError, match=reason):
        run(tmp_path / name)


@pytest.mark.parametrize(("field", "value"), [("encoding", "klingon"), ("max_quarantine_fraction", 1.5)])
def test_settings_out_of_range(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field.replace("_", "[-_]")):
        run(tmp_path / "a.csv", **{field: value})


def test_an_example_is_short_and_can_be_printed(tmp_path: Path) -> None:
    tally = Tally(examples={"bad_row": (Place(0, 1, "", "bad\udcff.jpg"), "\ud800" * 1000)})
    account = ImportAccount.of(Source(str(tmp_path), "folder", []), [], tally)
    (example,) = account.examples.values()
    assert len(example) <= 300
    example.encode()
