import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, OutputError
from atlas_ray.evaluation.review import QUEUE, Review, ReviewConfig, review
from atlas_ray.reports.page import MAX_BYTES
from atlas_ray.schemas import CATEGORIZED
from tests.support.held_files import HeldFiles
from tests.support.parts import Page, check_self_contained, picture, scored_run

A, B, C = ["Men", "Shirts"], ["Men", "Shoes"], ["Women", "Sarees"]


def product(name: str, path: list[str] | None, *others: tuple[list[str], float], **fields: Any) -> dict[str, Any]:
    """A product whose first probability is the path's own."""
    alternatives = [{"category_path": other, "probability": p} for other, p in others]
    return {"product_id": name, "category_path": path, "alternatives": alternatives, "split": "test"} | fields


def sure(
    name: str, path: list[str], probability: float, *others: tuple[list[str], float], **more: Any
) -> dict[str, Any]:
    levels = [probability] * len(path)
    fields = {"probability": probability, "level_probabilities": levels, "decided_level": len(path)}
    return product(name, path, *others, **fields, **more)


PRODUCTS = [
    sure("clear", A, 0.9, (B, 0.1), true_category_path=A),
    sure("near", A, 0.5, (B, 0.45), true_category_path=B, split="train"),
    sure("tie-2", B, 0.4, (A, 0.4)),
    sure("tie-1", B, 0.4, (A, 0.4)),
    sure("alone", C, 0.2),  # no other path was kept: that counts as 0
    # Sure of Men, and between two leaves of it.
    product("above", ["Men"], (B, 0.5), (A, 0.41), probability=0.91, level_probabilities=[0.91, 0.5], decided_level=1),
    product("undecided", None, (A, 0.3), (C, 0.29), level_probabilities=[0.3, 0.3], decided_level=0),
    product("z-nothing", None, alternatives=None, split=None),
    product("a-nothing", None, alternatives=None, split=None),
]


def reviewed(run: str, output: Path, **settings: Any) -> Review:
    return review(ReviewConfig(run=run, output=str(output), **settings))


def test_smallest_margin_first_and_those_without_an_answer_apart(tmp_path: Path) -> None:
    # A file and a row group each: what is kept passes from batch to batch.
    run = scored_run(tmp_path / "run", PRODUCTS, rows_per_file=2)
    found = reviewed(run, tmp_path / "all")
    assert found.queue.schema.equals(QUEUE)
    assert pq.read_table(tmp_path / "all" / "queue.parquet").equals(found.queue)
    names = ["tie-1", "tie-2", "undecided", "near", "above", "alone", "clear", "a-nothing", "z-nothing"]
    assert found.queue["product_id"].to_pylist() == names
    margins = [0, 0, 0.01, 0.05, 0.09, 0.2, 0.8]
    assert found.queue["margin"].to_pylist() == [*(pytest.approx(m, abs=1e-6) for m in margins), None, None]
    assert (found.products, found.unanswered) == (9, 2)
    few = reviewed(run, tmp_path / "few", count=1)
    assert few.queue["product_id"].to_pylist() == ["tie-1", "a-nothing"]
    assert few.unanswered == 2


def test_only_some_products(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", PRODUCTS)
    unlabelled = reviewed(run, tmp_path / "1", unlabelled_only=True).queue["product_id"].to_pylist()
    assert {"clear", "near"}.isdisjoint(unlabelled)
    assert len(unlabelled) == 7
    assert reviewed(run, tmp_path / "2", split="train").queue["product_id"].to_pylist() == ["near"]
    with pytest.raises(CatalogError, match=r"no product of the split 'val'; there is nothing to review"):
        reviewed(run, tmp_path / "3", split="val")
    assert not (tmp_path / "3").exists()


def test_the_page_and_the_spreadsheet_of_hostile_products(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(picture(3))
    script = '<script>alert(1)</script>"&'
    rows = [
        sure("=1+1", [script, "Shirts"], 0.5, ([script, "Shoes"], 0.4), image_uri=str(image)),
        sure(f"'{script}\n@x", A, 0.5, (B, 0.3), image_uri="/nowhere.jpg", true_category_path=[script]),
        sure("far", A, 0.5, (B, 0.1), image_uri="https://shop.example/a.jpg"),
        product(script, None, alternatives=None),
    ]
    reviewed(scored_run(tmp_path / "run", rows), tmp_path / "out")
    written = (tmp_path / "out" / "review.html").read_text()
    check_self_contained(written)
    page = Page(written)
    assert [source[:23] for source in page.sources] == ["data:image/jpeg;base64,"]
    text = "".join(page.text)
    for shown in (f"{script} > Shirts", "50.0%", "margin 10.0%", "not_found", "unsupported_uri", "no answer"):
        assert shown in text
    data = json.loads(next(part for part in page.text if part.startswith('{"key"')))
    assert [one["id"] for one in data["products"]] == ["=1+1", f"'{script}\n@x", "far", script]
    assert data["leaves"][:2] == [[0, script, "Shirts"], [1, "Shoes"]]
    with open(tmp_path / "out" / "queue.csv", encoding="utf-8-sig", newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert list(cells[0]) == QUEUE.names
    assert [row["product_id"] for row in cells] == ["'=1+1", f"''{script}\n@x", "far", script]
    assert cells[0]["alternatives"] == f"{script} > Shoes"
    assert cells[1]["true_category_path"] == script
    assert {row["corrected_category_path"] for row in cells} == {""}


@pytest.mark.long
def test_a_full_page_stays_small(tmp_path: Path, small_model: str) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(picture(20, 400))
    worst = ['"' * 999, '"' * 999]
    others = [(worst, 0.1)] * 5
    rows = [sure(f"{n:03d}" + '"' * 999, worst, 0.5, *others, image_uri=str(image)) for n in range(210)]
    rows += [product(f"none-{n:03d}" + '"' * 999, None, alternatives=None) for n in range(210)]
    found = reviewed(scored_run(tmp_path / "run", rows), tmp_path / "out", count=210, model=small_model)
    assert len(found.queue) == 420
    size = (tmp_path / "out" / "review.html").stat().st_size
    assert 0.8 * MAX_BYTES < size < MAX_BYTES  # filled with strips, and not over
    drawn = int(found.note.split()[0])
    page = Page((tmp_path / "out" / "review.html").read_text())
    assert sum(attributes.get("class") == "strip" for _, attributes in page.tags) == drawn > 10
    assert sum("card product" in (attributes.get("class") or "") for _, attributes in page.tags) == 400


@pytest.mark.long
def test_few_files_of_pictures_are_held(tmp_path: Path, small_model: str, held_files: HeldFiles) -> None:
    rows = []
    for number in range(40):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number % 10))
        rows.append(sure(f"{number:02d}", A, 0.5, (B, 0.4), image_uri=str(tmp_path / f"{number}.jpg")))
    found = reviewed(scored_run(tmp_path / "run", rows), tmp_path / "out", model=small_model)
    assert found.note.startswith("40 of them show")
    assert held_files.read >= 40
    assert 1 < held_files.most <= 17  # a group, and the last one looked at


def test_what_cannot_be_reviewed(tmp_path: Path, catalog: str) -> None:
    with pytest.raises(CatalogError, match="no finished scoring run"):
        reviewed(str(tmp_path), tmp_path / "out")
    with pytest.raises(CatalogError, match="no column 'probability', so this is no scoring run"):
        reviewed(catalog, tmp_path / "out")
    run = scored_run(tmp_path / "run", PRODUCTS)
    reviewed(run, tmp_path / "out")
    with pytest.raises(OutputError, match="may be filled in already"):
        reviewed(run, tmp_path / "out")
    (tmp_path / "run" / "products" / "broken.parquet").write_text("nothing")
    with pytest.raises(CatalogError, match="cannot be read"):
        reviewed(run, tmp_path / "other")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(CatalogError, match="not JSON"):
        reviewed(run, tmp_path / "other")


def test_an_older_run_without_the_later_columns(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([sure("a", A, 0.5, (B, 0.3))], schema=CATEGORIZED)
    (tmp_path / "run" / "products").mkdir(parents=True)
    pq.write_table(table.drop_columns(["decided_level", "image_uri"]), tmp_path / "run" / "products" / "a.parquet")
    (tmp_path / "run" / "run.json").write_text("{}")
    assert reviewed(str(tmp_path / "run"), tmp_path / "out").queue["margin"].to_pylist() == [pytest.approx(0.2)]
    assert "no_picture" in (tmp_path / "out" / "review.html").read_text()


def test_the_command_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = scored_run(tmp_path / "run", PRODUCTS, identity={"catalog": "shop/catalog", "model_id": "m"})
    assert main(["review", "--run", run, "--output", str(tmp_path / "out"), "--count", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 of 9 products to look at, margins 0.0000 to 0.0000; 2 more of 2 without any answer" in out
    assert f"relabel --catalog shop/catalog --corrections {tmp_path}/out/queue.csv" in out
    assert main(["review", "--run", run, "--output", "x", "--count", "0"]) == 2
    assert json.loads((tmp_path / "run" / "run.json").read_text())["identity"]["model_id"] == "m"
