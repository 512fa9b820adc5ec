import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.errors import CatalogError
from atlas_ray.records import CATEGORIZED
from atlas_ray.reports.evaluation import TABLES, evaluate
from atlas_ray.reports.terminal import print_evaluation
from tests.parts import scored_run

A, B = ["M", "S"], ["W", "D"]


def scored(folder: Path, rows: list[tuple[list[str] | None, list[str] | None, str | None]]) -> str:
    items = [
        {"product_id": str(n), "true_category_path": true, "category_path": guess, "split": split}
        for n, (true, guess, split) in enumerate(rows)
    ]
    (folder / "products").mkdir()
    pq.write_table(pa.Table.from_pylist(items, schema=CATEGORIZED), folder / "products" / "a.parquet")
    (folder / "run.json").write_text("{}")
    return str(folder)


def test_each_split_and_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = scored(
        tmp_path,
        [
            (A, A, "train"),
            (A, A, "test"),
            (A, B, "test"),
            (B, B, "test"),
            (B, None, "test"),
            (B, B, None),
            (None, A, None),
        ],
    )
    metrics = evaluate(run)
    assert list(metrics) == ["train", "test", "none", "all"]
    assert metrics["test"].exact == 0.5
    assert metrics["test"].unscored == 1
    assert metrics["all"].products == 6
    summary = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert summary["test"]["levels"] == [0.5, 0.5]
    table = pq.read_table(tmp_path / "evaluation" / "paths.parquet")
    assert table.schema.equals(TABLES["paths"])
    (row,) = [row for row in table.to_pylist() if row["split"] == "test" and row["category_path"] == A]
    assert (row["precision"], row["recall"], row["support"]) == (1.0, 0.5, 2)
    print_evaluation(metrics, str(tmp_path))
    out = capsys.readouterr().out
    assert "0.5000" in out
    assert "M > S" in out


def test_how_far_probabilities_can_be_trusted(tmp_path: Path) -> None:
    c = ["M", "T", "X"]
    rows = [(A, A, 0.9, [0.95, 0.9]), (A, c, 0.9, [0.95, 0.9, 0.9]), (B, A, 0.5, [0.5, 0.5]), (B, None, None, None)]
    (tmp_path / "products").mkdir()
    items = [
        {"product_id": str(n), "true_category_path": true, "category_path": guess, "split": "test",
         "probability": probability, "level_probabilities": levels}
        for n, (true, guess, probability, levels) in enumerate(rows)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(items, schema=CATEGORIZED), tmp_path / "products" / "a.parquet")
    (tmp_path / "run.json").write_text("{}")
    metrics = evaluate(str(tmp_path))
    assert list(metrics) == ["test", "all"]
    for one in metrics.values():
        # The whole path: 0.9 twice, once right; 0.5, wrong. Level 1: 0.95 twice, both right; level 3: 0.9, wrong.
        assert one.calibration_error == pytest.approx((2 * 0.4 + 0.5) / 3)
        assert one.level_calibration_errors == pytest.approx(((2 * 0.05 + 0.5) / 3, (2 * 0.4 + 0.5) / 3, 0.9))
    bins = pq.read_table(tmp_path / "evaluation" / "reliability.parquet").to_pylist()
    assert sum(row["count"] for row in bins if row["split"] == "test" and row["level"] == 0) == 3
    headline = pq.read_table(tmp_path / "evaluation" / "headline.parquet").to_pylist()
    found = {row["figure"]: row for row in headline if row["split"] == "test"}
    test = metrics["test"]
    assert (found["products"]["value"], found["exact"]["value"]) == (4, test.exact)
    assert (found["exact"]["low"], found["exact"]["high"]) == test.intervals["exact"]
    assert found["calibration_error"]["low"] is None
    levels = pq.read_table(tmp_path / "evaluation" / "levels.parquet").to_pylist()
    assert [row["accuracy"] for row in levels if row["split"] == "test"] == list(test.levels)
    assert (levels[0]["low"], levels[0]["high"]) == test.intervals["level_1"]


def test_probabilities_of_a_migrated_run_are_its_leaves(tmp_path: Path) -> None:
    """A migration may leave no levels; the products then count with what their leaves have."""
    a, b, c = ["M", "S", "x"], ["M", "S", "y"], ["W", "D"]
    listed = [{"category_path": a, "probability": 0.75}, {"category_path": b, "probability": 0.25}]
    answers: list[tuple[Any, ...]] = [
        (a, a, 0.75, listed[1:], 3, None),
        (b, ["M"], 1.0, listed, 1, None),
        (a, None, None, listed, 0, None),
        (c, c, 0.5, [], 2, [0.75, 0.5]),
        (c, None, None, None, None, None),
    ]
    names = (
        "true_category_path", "category_path", "probability", "alternatives", "decided_level", "level_probabilities",
    )  # fmt: skip
    items = [dict(zip(names, answer, strict=True)) for answer in answers]
    run = scored_run(tmp_path, [{"product_id": str(n), "split": "test"} | item for n, item in enumerate(items)])
    one = evaluate(run)["test"]
    assert (one.exact, one.unscored) == (3 / 5, 1)
    assert (one.answered, one.precision) == (3 / 5, 1.0)
    # The leaves: 0.75 three times, right twice; 0.5, right. The levels: of the one that has them.
    assert one.calibration_error == pytest.approx((3 * (0.75 - 2 / 3) + 0.5) / 4)
    assert one.level_calibration_errors == pytest.approx((0.25, 0.5))
    curve = pq.read_table(tmp_path / "evaluation" / "risk_coverage.parquet").to_pylist()
    points = [(row["coverage"], row["accuracy"]) for row in curve if row["split"] == "test"]
    assert {(0.75, 2 / 3), (1.0, 0.75)} <= set(points)
    bins = pq.read_table(tmp_path / "evaluation" / "reliability.parquet").to_pylist()
    assert all(row["probability"] > 0 for row in bins)


def test_a_run_without_any_levels_has_no_error_of_levels(tmp_path: Path) -> None:
    item = {"product_id": "1", "true_category_path": A, "category_path": A, "probability": 0.75, "decided_level": 2}
    one = evaluate(scored_run(tmp_path, [item]))["all"]
    assert one.calibration_error == pytest.approx(0.25)
    assert one.level_calibration_errors == ()


def test_what_cannot_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no finished scoring run"):
        evaluate(str(tmp_path))
    with pytest.raises(CatalogError, match="no product of its catalogue has a label"):
        evaluate(scored(tmp_path, [(None, A, None)]))
