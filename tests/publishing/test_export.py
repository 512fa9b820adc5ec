"""A run exported as a catalogue team does it, and read back by what they use."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError
from atlas_ray.formats.spreadsheet import unguarded
from atlas_ray.io import storage
from atlas_ray.publishing.answers import DELIVERED, READ, DeliveryRule, deliver
from atlas_ray.schemas import CATEGORIZED, quarantine_row
from tests.publishing.runs import DRESSES, IDS, SAREES, SHIRTS, answer, catalogue, shop_run, write_quarantine

HOSTILE = [
    "=HYPERLINK(1)", "-1", "a,b", 'say "hi"', "two\nlines", " padded ", "'quoted", "＝1", "7;8\t9",
    "é\u2028\x85x", "0012",
]  # fmt: skip
PRODUCTS = [
    answer("sure", SHIRTS, 0.9, brand="B", sku="007", availability="InStock", attributes=[("colour", "red, blue")]),
    answer("unsure", SAREES, 0.4),
    answer("labelled", SAREES, 0.8, true_category_path=list(DRESSES)),
    answer(
        "above", ("Men",), 0.95, alternatives=[{"category_path": list(SHIRTS), "probability": 0.5}], decided_level=1
    ),
    answer("silent", None),
    answer("both", SHIRTS, 0.9, true_category_path=list(SHIRTS), true_category_paths=[list(SHIRTS), list(DRESSES)]),
    answer("wrong", SAREES, 0.99),
]


@pytest.fixture
def run(tmp_path: Path) -> str:
    catalog = catalogue(tmp_path / "catalog", [("refused-1", "missing_images"), ("refused-2", "bad_row")], IDS)
    folder = tmp_path / "run"
    uri = shop_run(folder, PRODUCTS, catalog=catalog)
    write_quarantine(folder, [quarantine_row("fetch", "not_found", "no such file", image_id=5, product_id="silent")])
    return uri


def json_rows(path: Path) -> dict[str, dict[str, Any]]:
    return {row["product_id"]: row for row in map(json.loads, path.read_text().splitlines())}


def csv_rows(data: bytes) -> dict[str, dict[str, str]]:
    assert data.startswith(b"\xef\xbb\xbfproduct_id,")
    return {
        unguarded(row["product_id"]): row for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    }


def test_json_lines_say_who_names_each_category(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out" / "answers.jsonl"
    assert main(["export", "--run", run, "--output", str(output)]) == 0
    found = json_rows(output)
    assert list(found["sure"]) == DELIVERED.names
    assert [row["product_id"] for row in PRODUCTS] == list(found)
    assert found["sure"] == dict.fromkeys(DELIVERED.names) | {
        "product_id": "sure", "category_path": list(SHIRTS), "category_id": "11", "probability": 0.9, "source": "model",
        "needs_review": False, "brand": "B", "sku": "007", "availability": "InStock",
        "attributes": {"colour": "red, blue"},
    }  # fmt: skip
    of = ("category_path", "category_id", "probability", "source", "needs_review")
    assert [found["unsure"][name] for name in of] == [list(SAREES), "21", 0.4, "model", True]
    assert [found["labelled"][name] for name in of] == [list(DRESSES), "22", None, "label", False]
    assert [found["above"][name] for name in of] == [["Men"], "10", 0.95, "model", True]
    assert [found["silent"][name] for name in of] == [None, None, None, None, True]
    assert found["both"]["category_paths"] == [list(SHIRTS), list(DRESSES)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"7 products in {output}: 4 by model, 2 by label"
    assert lines[1:3] == ["  1 without a category", "  3 need a review"]
    refused = [json.loads(line) for line in (tmp_path / "out" / "answers.quarantine.jsonl").read_text().splitlines()]
    assert [(row["product_id"], row["stage"], row["error_code"]) for row in refused] == [
        ("refused-1", "import", "missing_images"), ("refused-2", "import", "bad_row"), ("silent", "fetch", "not_found"),
    ]  # fmt: skip
    assert refused[0]["message"] == "line 7: missing_images"
    assert lines[3].startswith(f"not among them, in {tmp_path}/out/answers.quarantine.jsonl: 3 rows, ")


def test_a_label_above_the_leaf_yields_to_a_leaf_below_it() -> None:
    women: dict[str, Any] = {"true_category_path": ["Women"]}
    root: dict[str, Any] = {"true_category_path": []}
    rows = [
        answer("below", SAREES, 0.9, **women), answer("beside", SHIRTS, 0.9, **women), answer("silent", None, **women),
        answer("equal", ("Women",), 0.9, **women), answer("root", SHIRTS, 0.9, **root),
    ]  # fmt: skip
    (batch,) = pa.Table.from_pylist(rows, schema=CATEGORIZED).select(READ).to_batches()
    found = deliver(batch, DeliveryRule.of("label", 0.5, {}, {})).to_pylist()
    assert [(row["category_path"], row["source"], row["probability"]) for row in found] == [
        (list(SAREES), "model", pytest.approx(0.9)), (["Women"], "label", None), (["Women"], "label", None),
        (["Women"], "label", None), (list(SHIRTS), "model", pytest.approx(0.9)),
    ]  # fmt: skip


def test_a_correction_wins_and_one_that_cannot_be_used_is_told(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "corrections.csv"
    lines = [
        "product_id,corrected_category_path",
        "wrong,men > shirts",
        "labelled,Women > Sarees",
        "nobody,Men > Shirts",
    ]
    file.write_text("\n".join([*lines, "sure,Men > Hats", "silent,"]) + "\n")
    command = ["export", "--run", run, "--output", str(tmp_path / "a.jsonl"), "--corrections", str(file)]
    assert main(command) == 3
    found = json_rows(tmp_path / "a.jsonl")
    for name, path in (("wrong", SHIRTS), ("labelled", SAREES)):
        row = found[name]
        assert (row["category_path"], row["source"], row["probability"]) == (list(path), "correction", None)
        assert row["needs_review"] is False
    assert found["sure"]["source"] == "model"
    refused = [json.loads(line) for line in (tmp_path / "a.quarantine.jsonl").read_text().splitlines()]
    told = {(row["product_id"], row["error_code"]) for row in refused if row["stage"] == "relabel"}
    assert told == {("nobody", "unknown_product"), ("sure", "unknown_category")}
    said = capsys.readouterr()
    assert "2 of 4 corrections cannot be used: " in said.out
    assert said.err.endswith("atlas-ray export: 50.0% of the corrections are in quarantine, over 5.0%\n")


def test_the_model_can_be_preferred_and_asked_to_be_surer(run: str, tmp_path: Path) -> None:
    command = ["export", "--run", run, "--output", str(tmp_path / "a.jsonl"), "--prefer", "model"]
    assert main([*command, "--review-below", "0.85"]) == 0
    found = json_rows(tmp_path / "a.jsonl")
    assert (found["labelled"]["source"], found["labelled"]["needs_review"]) == ("model", True)
    assert found["both"]["source"] == "model"
    assert found["both"]["category_paths"] is None


@pytest.mark.parametrize("name", ["answers.csv", "answers.csv.gz", "answers.CSV.zst"])
def test_a_csv_is_safe_in_a_spreadsheet_and_nothing_of_it_changes(tmp_path: Path, name: str) -> None:
    paths = [("Women", "=A1"), ("Women", "-x"), *[SHIRTS] * (len(HOSTILE) - 2)]
    products = [
        answer(text, path, 0.1 + 1e-9, brand=text, attributes=[(text, text)])
        for text, path in zip(HOSTILE, paths, strict=True)
    ]
    products[1]["category_path"] = ["=top", "b"]
    run = shop_run(tmp_path / "run", products, catalog=str(tmp_path / "gone"), rows_per_file=3)
    assert main(["export", "--run", run, "--output", str(tmp_path / name)]) == 0
    data = (tmp_path / name).read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    elif name.endswith(".zst"):
        data = pa.CompressedInputStream(io.BytesIO(data), "zstd").read()
    found = csv_rows(data)
    assert list(found) == HOSTILE
    for text, row in found.items():
        assert (unguarded(row["brand"]), json.loads(row["attributes"])) == (text, {text: text})
        assert row["probability"] == "0.1"
        assert all(cell[:1] not in ("=", "+", "-", "@", "\t", "＝") for cell in row.values())
    assert [row["category_path"] for row in found.values()][:3] == ["Women > =A1", "'=top > b", "Men > Shirts"]
    assert not list(tmp_path.glob("*quarantine*"))


def test_lines_of_json_are_lines_to_every_reader(tmp_path: Path) -> None:
    run = shop_run(tmp_path / "run", [answer(text, SHIRTS, 0.5) for text in HOSTILE], catalog=str(tmp_path / "gone"))
    assert main(["export", "--run", run, "--output", str(tmp_path / "a.jsonl")]) == 0
    text = (tmp_path / "a.jsonl").read_text()
    assert [json.loads(line)["product_id"] for line in text.splitlines()] == HOSTILE


def test_parquet_has_the_schema_and_a_run_without_a_product_has_a_header(tmp_path: Path) -> None:
    catalog = catalogue(tmp_path / "catalog", [])
    run = shop_run(tmp_path / "run", PRODUCTS, catalog=catalog)
    assert main(["export", "--run", run, "--output", str(tmp_path / "a.parquet")]) == 0
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.equals(DELIVERED)
    assert len(table) == len(PRODUCTS)
    assert table["category_id"].null_count == len(PRODUCTS)  # the taxonomy has no ids
    empty = tmp_path / "empty"
    (empty / "products").mkdir(parents=True)
    pq.write_table(pq.read_table(Path(run) / "products" / "0000.parquet").slice(0, 0), empty / "products" / "0.parquet")
    (empty / "run.json").write_text("{}")
    assert main(["export", "--run", str(empty), "--output", str(tmp_path / "empty.csv")]) == 0
    assert (tmp_path / "empty.csv").read_text("utf-8-sig").splitlines() == [",".join(DELIVERED.names)]


def test_a_copy_of_a_catalogue_and_a_migrated_run_lead_back_to_the_import(run: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "run.json").write_text(json.dumps({"job": "relabel", "config": {"catalog": str(tmp_path / "catalog")}}))
    refused = quarantine_row("relabel", "unknown_product", "not of this export", product_id="x")
    write_quarantine(copy, [refused])
    scored = shop_run(tmp_path / "of-copy", PRODUCTS, catalog=str(copy))
    migrated = tmp_path / "migrated"
    shop_run(migrated, PRODUCTS, catalog="")
    (migrated / "run.json").write_text(json.dumps({"job": "migrate", "identity": {"run": scored}}))
    assert main(["export", "--run", str(migrated), "--output", str(tmp_path / "m.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "m.quarantine.jsonl").read_text().splitlines()]
    assert [row["product_id"] for row in rows] == ["refused-1", "refused-2"]


def test_an_id_that_is_one_of_several_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = catalogue(tmp_path / "catalog", [], IDS | {"12": SHIRTS})
    run = shop_run(tmp_path / "run", [answer("a", SHIRTS, 0.9), answer("b", SAREES, 0.9)], catalog=catalog)
    assert main(["export", "--run", run, "--output", str(tmp_path / "a.jsonl")]) == 0
    found = json_rows(tmp_path / "a.jsonl")
    assert (found["a"]["category_id"], found["b"]["category_id"]) == (None, "21")
    assert "1 category paths have several ids in the taxonomy" in capsys.readouterr().err


def test_a_file_that_exists_stays_unless_it_is_to_be_replaced(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--run", run, "--output", str(tmp_path / "a.csv")]
    (tmp_path / "a.csv").write_text("somebody's")
    assert main(command) == 2
    assert f"{tmp_path}/a.csv exists; name another file, or replace it with --replace" in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_text() == "somebody's"
    assert main([*command, "--replace"]) == 0
    assert len(csv_rows((tmp_path / "a.csv").read_bytes())) == len(PRODUCTS)
    assert main(command) == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("answers", "its name tells no format"),
        ("answers.parquet.gz", "Parquet is compressed within"),
        ("folder.csv", "is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_written_is_refused(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert main(["export", "--run", run, "--output", str(tmp_path / name)]) == 2
    assert reason in capsys.readouterr().err
    assert main(["export", "--run", str(tmp_path / "catalog"), "--output", str(tmp_path / "b.csv")]) == 2
    assert "is no finished scoring run" in capsys.readouterr().err


def test_s3_takes_an_export_and_a_failed_one_leaves_what_was_there(
    run: str, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{s3}/export/answers.csv.gz"
    command = ["export", "--run", run, "--output", output]
    assert main(command) == 0
    before = storage.read_bytes(output)
    assert len(csv_rows(gzip.decompress(before))) == len(PRODUCTS)
    assert [name for name, _ in storage.walk(f"{s3}/export")] == ["answers.csv.gz", "answers.quarantine.csv.gz"]

    def fail(rows: pa.RecordBatch, _: Any) -> pa.Table:
        if rows["product_id"][0].as_py() == "wrong":
            raise CatalogError("the last file is damaged")
        return deliver(rows, _)

    monkeypatch.setattr("atlas_ray.pipelines.export.deliver", fail)
    assert main([*command, "--replace"]) == 2
    assert storage.read_bytes(output) == before


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_export_leaves_no_half_file(tmp_path: Path, number: signal.Signals) -> None:
    run = shop_run(tmp_path / "run", PRODUCTS, catalog=str(tmp_path / "gone"))
    code = f"""
import os, sys
from atlas_ray.pipelines import export
deliver, calls = export.deliver, []
def last(*given):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), {int(number)})
    return deliver(*given)
export.deliver = last
from atlas_ray.cli.main import main
sys.exit(main(["export", "--run", {run!r}, "--output", {str(tmp_path / "a.csv")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == (-number if number == signal.SIGKILL else 1), done.stderr
    assert not (tmp_path / "a.csv").exists()
    assert main(["export", "--run", run, "--output", str(tmp_path / "a.csv")]) == 0
    assert len(csv_rows((tmp_path / "a.csv").read_bytes())) == len(PRODUCTS)
