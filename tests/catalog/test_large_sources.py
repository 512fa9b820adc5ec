"""Sources that are read in parts, at the same time, and shuffled by Ray: they say what one reader says."""

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_ray.catalog import shuffling
from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog, open_source
from atlas_ray.catalog.reading import PartReport, lines_before, misfits
from atlas_ray.formats import spans

HEADER = "id,title,description,image,category\n"
CELLS = [
    '"',
    '""',
    ",",
    "\n",
    "\r\n",
    "a",
    "b c",
    'say "hi"',
    '"two\nlines"',
    "é",
    "x,y",
    "\n\n",
    '"a\nb\nc, d, e, f\ng"',
]


def read_in_parts(path: Path, span_bytes: int) -> tuple[list[dict[str, Any]], list[PartReport], int]:
    """Read a source in parts, each as if the others were not known, and those again that do not fit."""
    source = open_source(ImportConfig(source=str(path), output="out"))
    before, spans.SPAN_BYTES = spans.SPAN_BYTES, span_bytes
    try:
        parts = source.source.parts()
    finally:
        spans.SPAN_BYTES = before
    reports: dict[int, PartReport] = {}
    rows: dict[int, list[dict[str, Any]]] = {}
    again, rounds = parts, 0
    while again:
        for part in again:
            reports[part.number] = PartReport(part)
            tables = list(source.reading.read(part, reports[part.number]))
            rows[part.number] = [row for table in tables for row in table.to_pylist()]
        again = misfits([reports[number] for number in sorted(reports)])
        rounds += 1
        assert rounds <= len(parts) + 1
    ordered = [reports[number] for number in sorted(reports)]
    lines = lines_before(ordered)
    found = [row | {"number": row["number"] + lines[row["part"]], "part": 0} for number in sorted(rows)
             for row in rows[number]]  # fmt: skip
    return sorted(found, key=lambda row: row["number"]), ordered, rounds


def totals(reports: list[PartReport]) -> tuple[int, int, int]:
    return sum(one.records for one in reports), sum(one.blank for one in reports), sum(one.lines for one in reports)


@pytest.mark.long
@given(st.lists(st.lists(st.sampled_from(CELLS), max_size=6).map("".join), max_size=40), st.integers(20, 300))
@settings(max_examples=150, deadline=None)
def test_any_csv_is_read_alike_in_parts(tmp_path_factory: pytest.TempPathFactory, rows: list[str], size: int) -> None:
    path = tmp_path_factory.mktemp("csv") / "shop.csv"
    lines = [f"{number},T,{row},{number}.jpg,A > B\n" for number, row in enumerate(rows)]
    path.write_text(HEADER + "0,first,,0.jpg,A > B\n" + "".join(lines), newline="")
    whole, reports, _ = read_in_parts(path, 1 << 30)
    assert len(reports) == 1
    parts, several, _ = read_in_parts(path, size)
    assert parts == whole
    assert totals(several) == totals(reports)
    assert sum(one.own_lines or 0 for one in several) == sum(one.lines + one.header_lines for one in several)


def test_a_wrong_guess_is_read_again(tmp_path: Path) -> None:
    """Within a description of a thousand lines each line looks like a record."""
    inner = "".join(f"x{number},T,D,{number}.jpg,A > B -\n" for number in range(1000))
    path = tmp_path / "shop.csv"
    path.write_text(HEADER + f'1,One,"a note\n{inner}end",1.jpg,A > B\n' + "2,Two,D,2.jpg,A > B\n" * 100)
    whole, (report,), _ = read_in_parts(path, 1 << 30)
    parts, reports, rounds = read_in_parts(path, 5000)
    assert len(reports) > 5
    assert rounds > 1
    assert parts == whole
    assert totals(reports) == totals([report])


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16", "cp1250"])
def test_one_encoding_for_all_parts(tmp_path: Path, encoding: str) -> None:
    words = {"cp1250": "Żółta łódź źdźbło"}.get(encoding, "Größe café naïve")
    path = tmp_path / "shop.csv"
    rows = [f"{number},T,{words if number % 50 == 7 else 'plain'},{number}.jpg,A > B\n" for number in range(400)]
    path.write_bytes((HEADER + "".join(rows)).encode(encoding))
    whole, _, _ = read_in_parts(path, 1 << 30)
    parts, reports, _ = read_in_parts(path, 1000)
    assert parts == whole
    assert (len(reports) > 5) == (encoding != "utf-16")
    assert {row["description"] for row in parts} == {words, "plain"}


def test_json_lines_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    rows = [json.dumps({"id": number, "title": f"T {number}"}) + "\n" * (number % 3) for number in range(300)]
    path.write_text("\n".join(rows) + "\n{broken")
    whole, _, _ = read_in_parts(path, 1 << 30)
    parts, reports, rounds = read_in_parts(path, 500)
    assert (len(reports) > 5, rounds) == (True, 1)
    assert parts == whole


def shop(path: Path, seed: int = 1) -> None:
    """Write a shop's CSV with everything in it that can go wrong, in a few kilobytes."""
    draws = random.Random(seed)
    rows = []
    for number in range(600):
        name = f"sku-{draws.randrange(500)}"
        title = draws.choice([f"T {name}", f"T {name}", "", f"Other {number}" * (number % 40 == 0)])
        note = draws.choice(["", "plain", '"two\nlines, with\ncommas"', 'a stray " quote', '"torn', "Größe"])
        path_name = draws.choice(["A > B", "A > C", "", "A > > B"])
        rows.append(f"{name},{title},{note},{draws.choice(['', f'{number}.jpg'])},{path_name}\n")
    path.write_text(HEADER + "".join(rows) + "\n\n,,,,\n")


def tables(output: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for name, key in (("products", "product_id"), ("images", "image_id"), ("quarantine", "message")):
        rows = pq.read_table(output / name).to_pylist()
        found[name] = sorted(rows, key=lambda row: (row[key], str(row)))
    return found


def account(output: Path) -> dict[str, Any]:
    run = json.loads((output / "run.json").read_text())
    return {
        name: value for name, value in run.items() if name not in ("started_at", "finished_at", "seconds", "output")
    }


def imported(source: Path, output: Path, **fields: Any) -> ImportReport:
    return import_catalog(ImportConfig(source=str(source), output=str(output), **fields))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, local_ray: None) -> None:
    """Let small sources count as large ones."""
    monkeypatch.setattr(shuffling, "SMALL_BYTES", 0)
    monkeypatch.setattr(spans, "SPAN_BYTES", 4000)
    monkeypatch.setattr(shuffling, "PARTITION_ROWS", 40)


@pytest.mark.parametrize("exact", [False, True])
def test_ray_says_what_one_process_says(
    tmp_path: Path,
    large: None,
    monkeypatch: pytest.MonkeyPatch,
    exact: bool,
) -> None:
    shop(tmp_path / "old.csv", seed=2)
    shop(tmp_path / "shop.csv")
    with monkeypatch.context() as small:
        small.setattr(shuffling, "SMALL_BYTES", 1 << 30)
        small.setattr(spans, "SPAN_BYTES", 1 << 30)
        imported(tmp_path / "old.csv", tmp_path / "old")
        fields = {"previous": (str(tmp_path / "old"),), "split_exact": exact}
        here = imported(tmp_path / "shop.csv", tmp_path / "here", **fields)
    there = imported(tmp_path / "shop.csv", tmp_path / "there", **fields)
    assert tables(tmp_path / "there") == tables(tmp_path / "here")
    assert len(list((tmp_path / "there" / "products").iterdir())) > (0 if exact else 5)
    assert replace(there, output="", labels=here.labels) == replace(here, output="")
    assert account(tmp_path / "there") == account(tmp_path / "here")
    assert here.quarantined.keys() >= {"bad_row", "bad_category_path", "contradicting_rows", "missing_images"}
    assert here.split_origins.keys() == {"previous", "drawn"}


def test_a_parquet_folder_with_ray(tmp_path: Path, large: None) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    for file in range(3):
        names = [f"p{file}-{number}" for number in range(100)]
        columns = {"id": names, "title": names, "image": [f"{name}.jpg" for name in names]}
        pq.write_table(pa.table(columns), folder / f"{file}.parquet", row_group_size=30)
    (folder / "_SUCCESS").write_text("")
    report = imported(folder, tmp_path / "out")
    assert (report.records, report.products, report.images) == (300, 300, 300)
    found = pq.read_table(tmp_path / "out" / "products")["product_id"].to_pylist()
    assert len(set(found)) == 300


def test_a_mistake_is_told_in_a_line(tmp_path: Path, large: None) -> None:
    """What is wrong with a source as a whole comes to light in a task, too."""
    (tmp_path / "shop.csv.gz").write_bytes(gzip.compress((HEADER + "1,T,D,1.jpg,A > B\n" * 5000).encode())[:-20])
    from atlas_ray.cli.main import main

    assert main(["import", str(tmp_path / "shop.csv.gz"), "--output", str(tmp_path / "out")]) == 2
