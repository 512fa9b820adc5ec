import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.errors import CatalogError
from atlas_ray.records import CATEGORIZED
from atlas_ray.reports.evaluation import TABLES, evaluate
from atlas_ray.reports.terminal import print_evaluation

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


def test_what_cannot_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no finished scoring run"):
        evaluate(str(tmp_path))
    with pytest.raises(CatalogError, match="no product of its catalogue has a label"):
        evaluate(scored(tmp_path, [(None, A, None)]))
