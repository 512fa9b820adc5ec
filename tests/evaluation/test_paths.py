import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError
from atlas_ray.evaluation.paths import TABLES, evaluate
from atlas_ray.metrics import Confusion
from atlas_ray.reports.terminal import print_evaluation
from atlas_ray.runs.examples import find_examples
from atlas_ray.runs.scored import PREDICTED, open_scored
from atlas_ray.schemas import CATEGORIZED
from atlas_ray.taxonomy import Taxonomy
from tests.support.parts import scored_run

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


Row = tuple[str | None, bool | None, bool]


def fitted_run(folder: Path, rows: Sequence[Row], taxonomy: Taxonomy | None = None) -> str:
    """Rows of split, whether the model was fitted on the product, and whether it is right."""
    items = [
        {"product_id": f"p{n}", "true_category_path": A, "category_path": A if right else B, "split": split,
         "fitted": fitted, "probability": 0.5, "level_probabilities": [0.5, 0.5]}
        for n, (split, fitted, right) in enumerate(rows)
    ]  # fmt: skip
    run = scored_run(folder, items)
    if taxonomy:
        (folder / PREDICTED).write_text(taxonomy.to_json())
    return run


def headline(run: str, split: str) -> dict[str, float]:
    rows = pq.read_table(Path(run) / "evaluation" / "headline.parquet").to_pylist()
    return {row["figure"]: row["value"] for row in rows if row["split"] == split}


def test_products_that_the_model_was_fitted_on_are_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Row] = [
        *[("train", True, True)] * 3, *[("test", True, True)] * 2, *[("test", False, False)] * 3, ("test", False, True),
        ("val", True, True), ("val", False, True), (None, True, True),
    ]  # fmt: skip
    run = fitted_run(tmp_path / "run", rows)
    metrics = evaluate(run)
    assert {split: (one.products, one.exact, one.fitted, one.left_out) for split, one in metrics.items()} == {
        "train": (3, 1.0, 3, 0), "val": (1, 1.0, 0, 1), "test": (4, 0.25, 0, 2), "all": (8, 5 / 8, 3, 4),
    }  # fmt: skip
    assert (headline(run, "test")["products"], headline(run, "test")["exact"]) == (4, 0.25)
    for name in ("paths", "levels"):
        table = pq.read_table(Path(run) / "evaluation" / f"{name}.parquet").to_pylist()
        (first, *_) = [row for row in table if row["split"] == "test"]
        assert first.get("support", 4) == 4
        assert first.get("accuracy", 0.25) == 0.25
    listed = pq.read_table(Path(run) / "evaluation" / "fitted.parquet").to_pylist()
    assert [(row["split"], row["product_id"]) for row in listed] == [
        ("test", "p3"), ("test", "p4"), ("val", "p9"), ("none", "p11"),
    ]  # fmt: skip
    told = capsys.readouterr().err
    assert "2 labelled products of the split 'test' are left out of all figures: the model was fitted on them" in told
    assert "1 labelled products without a split are left out" in told
    page = (Path(run) / "evaluation" / "report.html").read_text()
    assert "2 labelled products of the split &#x27;test&#x27; are left out of all figures" in page
    assert "25.0% of 4 test products right" in page


def test_without_a_test_split_the_headline_is_what_was_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fitted_run(tmp_path / "run", [("train", True, True)] * 5 + [("val", False, False), ("val", False, True)])
    metrics = evaluate(run)
    assert (metrics["held out"].products, metrics["held out"].exact, metrics["all"].products) == (2, 0.5, 7)
    assert (
        "50.0% of 2 labelled products that the model was not fitted on right"
        in (Path(run) / "evaluation" / "report.html").read_text()
    )
    all_seen = fitted_run(tmp_path / "seen", [("train", True, True)] * 5 + [("test", True, True)])
    assert list(evaluate(all_seen)) == ["train", "all"]
    assert "the model was fitted on 5 of the 5 products of the headline" in capsys.readouterr().err
    with pytest.raises(CatalogError, match="the model was fitted on all 2 labelled products"):
        evaluate(fitted_run(tmp_path / "leaked", [("test", True, True)] * 2))
    evaluate(fitted_run(tmp_path / "unknown", [("test", None, True)] * 4))
    assert "not known whether the model was fitted on 4 of the labelled products" in capsys.readouterr().err
    assert not (tmp_path / "unknown" / "evaluation" / "fitted.parquet").exists()


def test_a_run_of_another_taxonomy_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Taxonomy([("Garden", "Spades"), ("M", "Other")], name="garden")
    run = fitted_run(tmp_path / "run", [("test", False, False)] * 3, other)
    assert main(["evaluate", "--run", run]) == 2
    told = capsys.readouterr().err
    assert "none of the 1 labels of its products is in it; the labels are 'M > S', its leaves 'Garden > Spades'" in told
    assert not (tmp_path / "run" / "evaluation").exists()
    some = Taxonomy([("M", "S", "X"), ("W", "D")], name="some")
    evaluate(fitted_run(tmp_path / "some", [("test", False, False)] * 3, some))
    told = capsys.readouterr().err
    assert "3 of the 3 products of the headline are labelled above the leaf; each is judged at the level" in told
    (tmp_path / "few").mkdir()
    few = scored(tmp_path / "few", [(A, B, "test"), (B, B, "test")])
    (tmp_path / "few" / PREDICTED).write_text(Taxonomy([("M", "T"), ("W", "D")], name="few").to_json())
    evaluate(few)
    told = capsys.readouterr().err
    assert "1 of the 2 labels of its products, which 1 of 2 labelled products have, are no nodes" in told


def test_a_label_above_the_leaf_is_judged_at_its_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y, z, top = ["M", "S", "x"], ["M", "S", "y"], ["W", "z"], ["M", "S"]
    rows: list[tuple[Any, ...]] = [
        (x, x, [0.75, 0.5, 0.25], 3),  # right
        (top, x, [1.0, 0.75, 0.25], 3),  # right: below its label, which is as sure as 0.75
        (["M"], z, [0.5, 0.5], 2),  # wrong
        (top, y, [0.75, 0.5, 0.25], 1),  # right; what is answered, M, holds
        (["W"], z, [0.25, 0.25], 2),  # right; a node with one leaf below it
        ([], z, [0.5, 0.25], 2),  # the root says nothing, as no label does
    ]
    items = [
        {"product_id": str(n), "true_category_path": true, "category_path": guess, "split": "test",
         "decided_level": deep, "probability": levels[-1], "level_probabilities": levels, "image_uri": f"/{n}.jpg"}
        for n, (true, guess, levels, deep) in enumerate(rows)
    ]  # fmt: skip
    items[3] |= {
        "category_path": ["M"], "probability": 0.75, "alternatives": [{"category_path": y, "probability": 0.25}],
    }  # fmt: skip
    run = scored_run(tmp_path / "run", items)
    (tmp_path / "run" / PREDICTED).write_text(Taxonomy([tuple(x), tuple(y), tuple(z)], name="t").to_json())
    one = evaluate(run)["test"]
    assert "4 of the 5 products of the headline are labelled above the leaf" in capsys.readouterr().err
    assert (one.products, one.labelled_above, one.exact) == (5, 4, 0.8)
    assert one.levels == (0.8, 1.0, 1.0)  # of the five, of the three, and of the one that have the level
    assert one.precision == 0.8
    # Names that are right: 3 + 2 + 0 + 2 + 1; answered, as far as they are judged: 3 + 2 + 1 + 2 + 1; true: as many.
    assert one.hierarchical_f1 == pytest.approx(2 * 8 / (9 + 9))
    paths = {row.path: (row.support, row.predicted, row.f1) for row in one.paths}
    assert paths == {
        ("M", "S"): (2, 2, 1.0), ("M",): (1, 0, 0.0), ("W",): (1, 2, 2 / 3), ("M", "S", "x"): (1, 1, 1.0),
    }  # fmt: skip
    assert one.macro_f1 == pytest.approx((1 + 0 + 2 / 3 + 1) / 4)
    assert one.confusion == Confusion(("M",), ("W",), 1)
    # The answers at the level of their labels: 0.25, 0.75, 0.5 (wrong), 0.5 (right), 0.25; three bins.
    assert one.calibration_error == pytest.approx((2 * 0.75 + 0.25 + 2 * 0.0) / 5)
    assert [bool(error) for error in one.level_calibration_errors] == [True, True, True]
    assert one.level_calibration_errors[1:] == pytest.approx(((2 * 0.5 + 0.25) / 3, 0.75))
    confusions = pq.read_table(Path(run) / "evaluation" / "confusions.parquet").to_pylist()
    assert [(row["true_category_path"], row["category_path"], row["names_lost"]) for row in confusions[:1]] == [
        (["M"], ["W"], 1)
    ]
    found = find_examples(open_scored(run), "test", [(("M",), ("W",))], each=1, explained=9, outside=1)
    assert [row["product_id"] for row in found.confused[("M",), ("W",)].rows] == ["2"]
    assert {row["product_id"] for row in found.right.rows} == {"0", "1", "3", "4"}
    assert {row["product_id"] for row in found.wrong.rows} >= {"2"}


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
