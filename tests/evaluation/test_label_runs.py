"""Runs of labels: measured, compared and reviewed from the tables that scoring leaves."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.arrays import tagged
from atlas_ray.errors import CatalogError
from atlas_ray.evaluation.label_comparison import JOINED, PRODUCTS, compare_block
from atlas_ray.evaluation.label_run import evaluate_run
from atlas_ray.evaluation.paths import evaluate
from atlas_ray.evaluation.review import ReviewConfig, review
from atlas_ray.schemas import CATEGORIZED
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from tests.support.parts import scored_run

TAXONOMY = Taxonomy([("Men", "Shirts"), ("Men", "Jackets"), ("Women", "Dresses")], name="small")
SHIRT, JACKET, DRESS = TAXONOMY.leaves
THRESHOLDS = {"Men": 0.5, "Shirts": 0.25, "Jackets": 0.5, "Women": 0.5, "Dresses": 2.0}


def answer(product: str, path: Any, applied: dict[str, float] | None, **fields: Any) -> dict[str, Any]:
    """Return a row of a run of labels; what is under its threshold is listed as other."""
    labels = {
        name: None if applied is None else [
            {"label": label, "probability": chance}
            for label, chance in applied.items()
            if (chance >= THRESHOLDS[label]) == (name == "labels")
        ]
        for name in ("labels", "other_labels")
    }  # fmt: skip
    return {"product_id": product, "true_category_path": path and list(path), "split": "test", **labels, **fields}


ANSWERS = [
    answer("right", SHIRT, {"Men": 0.75, "Shirts": 0.5}),
    answer("wrong", SHIRT, {"Women": 0.875, "Shirts": 0.125}),
    answer("several", SHIRT, {"Men": 0.75, "Shirts": 0.375}, true_category_paths=[list(SHIRT), list(JACKET)]),
    answer("none", DRESS, {}),
    answer("dead", DRESS, None),
    answer("seen", SHIRT, {"Men": 1.0, "Shirts": 1.0}, fitted=True),
    answer("unlabelled", None, {"Men": 0.75}),
    answer("elsewhere", ("Home", "Lamps"), {"Men": 0.75}),
    answer("of-train", JACKET, {"Men": 1.0, "Jackets": 1.0}, split="train", fitted=True),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    scored_run(folder, ANSWERS, identity={"thresholds": THRESHOLDS, "model_id": "m"})
    (folder / "predicted_taxonomy.json").write_text(TAXONOMY.to_json())
    return folder


def test_labels_are_measured_by_hand(run: Path) -> None:
    metrics = evaluate_run(str(run))
    test = metrics["test"]
    # right: 2, 0, 2, 0, 0; applied: 2, 1, 2, 0, 0; true: 2, 2, 3, 2, 2
    assert (test.products, test.unscored, test.left_out, test.exact) == (5, 1, 1, 1 / 5)
    assert (test.micro_precision, test.micro_recall) == (4 / 5, 4 / 11)
    assert test.micro_f1 == pytest.approx(2 * 4 / (5 + 11))
    rows = {row["label"]: row for row in test.labels}
    assert (rows["Dresses"]["threshold"], rows["Dresses"]["missed"], rows["Dresses"]["predicted"]) == (2.0, 2, 0)
    assert (rows["Shirts"]["support"], rows["Shirts"]["missed"], rows["Women"]["predicted"]) == (3, 1, 1)
    assert metrics["train"].micro_f1 == metrics["train"].exact == 1
    assert json.loads((run / "evaluation" / "metrics.json").read_text())["test"]["micro_f1"] == test.micro_f1
    table = pq.read_table(run / "evaluation" / "labels.parquet").to_pylist()
    assert {row["label"] for row in table if row["split"] == "all"} == set(THRESHOLDS)


def test_the_page_says_what_was_measured(run: Path) -> None:
    evaluate_run(str(run))
    page = (run / "evaluation" / "report.html").read_text()
    verdict = "20.0% of 5 test products have exactly their labels; \u201cWomen\u201d is missed most often, 2 times"
    assert verdict in page
    assert (
        "80.0% of the labels that it applies are right, and it applies 36.4% of those that the products have." in page
    )
    assert "1 of the products have no answer" in page
    assert "products of the label" in page
    assert "1 labelled products of the split &#x27;test&#x27; are left out of all figures" in page
    cells = re.findall(r"<td[^>]*>([^<]*)", page[page.index("<h2>Labels</h2>") :])
    rows = {cells[start]: cells[start + 1 : start + 7] for start in range(0, len(cells), 7)}
    assert rows["Shirts"] == ["3", "2", "100.0%", "66.7%", "80.0%", "0.25"]
    assert rows["Dresses"][-1] == ""  # it is never applied
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_runs_of_labels_and_of_paths_are_told_apart(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="a run of labels, and one of category paths is needed here"):
        evaluate(str(run))
    paths = scored_run(tmp_path / "paths", [{"product_id": "a", "category_path": list(SHIRT), "probability": 0.5}])
    with pytest.raises(CatalogError, match="a run of category paths, and one of labels is needed here"):
        evaluate_run(paths)


def test_the_least_sure_labels_are_reviewed_first(run: Path, tmp_path: Path) -> None:
    found = review(
        ReviewConfig(run=str(run), output=str(tmp_path / "review"), taxonomy=str(run / "predicted_taxonomy.json"))
    )
    rows = found.queue.to_pylist()
    assert [(row["product_id"], row["margin"]) for row in rows][:3] == [
        ("several", 0.125), ("wrong", 0.125), ("elsewhere", 0.25),
    ]  # fmt: skip
    assert rows[-1]["product_id"] == "dead"
    page = (tmp_path / "review" / "review.html").read_text()
    assert "applied Men, Shirts" in page
    assert "applied no label" in page
    assert "distance of the least sure label" in page
    assert "Men | Shirts" in (tmp_path / "review" / "queue.csv").read_text("utf-8-sig")


def test_gains_and_losses_by_hand() -> None:
    after = [
        answer("right", SHIRT, {"Men": 0.75, "Shirts": 0.5}),
        answer("wrong", SHIRT, {"Men": 0.75, "Shirts": 0.5}),
        answer("several", SHIRT, {"Men": 0.75}, true_category_paths=[list(SHIRT), list(JACKET)]),
        answer("seen", SHIRT, {}, fitted=True),
        answer("new", DRESS, {"Women": 1.0}),
    ]
    names = [name for name in JOINED.names if name in CATEGORIZED.names]
    tables = [
        tagged(pa.Table.from_pylist(rows, schema=CATEGORIZED).select(names), kind, JOINED)
        for kind, rows in enumerate((ANSWERS[:3] + ANSWERS[5:7], after))
    ]
    space = LabelSpace(TAXONOMY, ("Men", "Shirts", "Women"))
    rows = compare_block(pa.concat_tables(tables), space).to_pylist()
    changed = {row["product_id"]: row for row in rows if row["product_id"]}
    assert {name: row["change"] for name, row in changed.items()} == {
        "wrong": "moved", "several": "moved", "seen": "moved", "unlabelled": "only_before", "new": "only_after",
    }  # fmt: skip
    assert (changed["wrong"]["gained"], changed["wrong"]["lost"]) == (["Men", "Shirts"], ["Women"])
    assert (changed["several"]["gained"], changed["several"]["lost"]) == ([], ["Shirts"])
    assert changed["several"]["true_labels"] == ["Men", "Shirts"]
    assert changed["unlabelled"]["true_labels"] is None
    (counts,) = [row for row in rows if row["product_id"] is None]
    products = dict(zip(PRODUCTS, counts["products"], strict=True))
    assert products == {
        "same": 1, "moved": 3, "only_before": 1, "only_after": 1, "fitted": 1,
        "both": 1, "won": 1, "lost": 1, "neither": 0,
    }  # fmt: skip
    labels = [counts["labels"][start : start + 3] for start in range(0, 30, 3)]
    assert labels[:4] == [[4, 3, 1], [3, 2, 1], [1, 1, 0], [1, 2, 1]]  # applied before and after, gained, lost
    assert labels[4:7] == [[2, 2, 0], [0, 0, 1], [1, 1, 0]]  # before: right, wrong, missed
    assert labels[7:] == [[3, 2, 0], [0, 0, 0], [0, 1, 0]]
