"""The tables of the late-fusion paper, by one command on a drawn catalogue in Amazon's layout."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from atlas_ray.evaluation.labels import LabelReport
from atlas_ray.modalities import MODALITIES
from benchmarks import late_fusion_paper
from tests.support.parts import check_self_contained, rows

SAREES = ["Women", "Ethnic Wear", "Sarees"]
SMALL: dict[str, dict[str, Any]] = {
    "image": {"backbone": "resnet18", "weights": "none", "image_size_px": 32, "epochs": 1, "min_products": 10},
    "title": {"min_products": 10, "embedding_dim": 8, "filters": 8, "hidden_dim": 8, "epochs": 8, "encoder_lr": 0.03},
    "description": {"min_products": 10, "embedding_dim": 8, "filters": 8, "hidden_dim": 8, "epochs": 1},
    "fusion": {},
}
SETS = ["picture+title", "picture+description", "title+description", "picture+title+description"]


def test_table_4_is_of_the_best_policy_over_the_same_classifiers() -> None:
    names = [*MODALITIES, *(f"{one} {policy}" for one in SETS for policy in ("max", "mean"))]
    models = {name: f"/m/{number}" for number, name in enumerate(names)}
    shares = {name: 0.75 if name.endswith("mean") == ("picture" in name) else 0.5 for name in names}
    measured = [
        {"model": uri} | dict.fromkeys(("micro_f1", "micro_precision", "micro_recall"), shares[name])
        for name, uri in models.items()
    ]
    missed = [
        {"model": uri, "label": label, "missed": count, "support": 9}
        for uri in models.values()
        for label, count in (("Shirts", 3), ("Shoes", 1))
    ]
    overlap = [{"model": "/m/0", "other": "/m/1", "missed": 4, "missed_by_both": 3}]
    tables = late_fusion_paper.tables_of(LabelReport(measured, missed, overlap, 9, 0, {}), models, {"Shirts": 20})
    assert tables["table3"] == (
        ("over", "max", "mean"), [[one, 0.5, 0.75] if "picture" in one else [one, 0.75, 0.5] for one in SETS],
    )  # fmt: skip
    head, rows_of_4 = tables["table4"]
    assert head == ("rank", *(f"{one} {'mean' if 'picture' in one else 'max'}" for one in SETS))
    assert rows_of_4 == [[1, *["Shirts 3/9"] * 4], [2, *["Shoes 1/9"] * 4]]
    assert tables["overlap"][1][0] == ["picture", None, 0.75, None]
    assert tables["figure2"] == (("label", "products"), [["Shirts", 20]])


@pytest.mark.slow
def test_one_command_makes_the_papers_tables(local_ray: None, described: str, tmp_path: Path) -> None:
    source = tmp_path / "meta.json"
    pictures = {row["product_id"]: row["image_uri"] for row in rows(described, "images")}
    with source.open("w") as file:
        for row in rows(described, "products"):
            path = row["category_path"]
            given = {
                "asin": row["product_id"], "title": row["title"], "description": row["description"],
                "imUrl": pictures.get(row["product_id"]), "categories": [path, SAREES] if path else None,
            }  # fmt: skip
            file.write(json.dumps({name: value for name, value in given.items() if value}) + "\n")
    configs = tmp_path / "configs"
    configs.mkdir()
    for name, changed in SMALL.items():
        recipe = yaml.safe_load((late_fusion_paper.CONFIGS / f"late-fusion-{name}.yaml").read_text())
        (configs / f"late-fusion-{name}.yaml").write_text(yaml.safe_dump(recipe | changed))
    work = tmp_path / "work"
    command = ["--source", str(source), "--work", str(work), "--configs", str(configs), "--policies", "ridge"]
    folder = str(Path(next(iter(pictures.values()))).parent)
    late_fusion_paper.main([*command, "--split", "60/20/20", "--image-base", folder])

    tables = {}
    for name in late_fusion_paper.TITLES:
        with (work / f"{name}.csv").open(newline="") as lines:
            tables[name] = list(csv.reader(lines))
    assert [row[0] for row in tables["table1"]] == ["classifier", "picture", "title", "description"]
    assert tables["table2"][0] == ["rank", "picture", "title", "description"]
    assert tables["table3"][0] == ["over", "ridge"]
    assert [row[0] for row in tables["table3"][1:]] == SETS
    assert tables["table4"][0] == ["rank", *(f"{one} ridge" for one in SETS)]
    models = pq.read_table(work / "measured" / "models.parquet").to_pylist()
    measured = {Path(row["model"]).name: row for row in models}
    assert float(tables["table1"][2][1]) == measured["title"]["micro_f1"] > 0
    assert float(tables["table3"][3][1]) == measured["title+description-ridge"]["micro_f1"]
    labels = dict(tables["figure2"][1:])
    labelled = [row for row in rows(str(work / "imported"), "products") if row["category_path"]]
    assert int(labels["Sarees"]) == len(labelled)  # each has two paths, of which this is one
    assert [row[1:].index("") for row in tables["overlap"][1:]] == [0, 1, 2]
    page = (work / "tables.html").read_text()
    check_self_contained(page)
    assert all(title in page for title in late_fusion_paper.TITLES.values())
