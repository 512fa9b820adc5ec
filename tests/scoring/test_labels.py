"""Models of labels applied: scored, measured, carried over and exported."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from atlas_ray.artifacts import load_artifact, save_artifact, save_joint_artifact
from atlas_ray.cli.main import main
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary
from tests.support.parts import make_text_artifact, picture, rows

pytestmark = pytest.mark.usefixtures("local_ray")
TAXONOMY = Taxonomy([("Men", "Shirts"), ("Men", "Jackets"), ("Women", "Dresses"), ("Women", "Jackets")], name="small")
PRODUCT_COUNT = 24


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products of one to three pictures, some damaged, some without a title; and a fused model of their labels."""
    folder = tmp_path_factory.mktemp("shop")
    products, images = [], []
    for number in range(PRODUCT_COUNT):
        name, path = f"p{number:02d}", TAXONOMY.leaves[number % 4]
        uris = []
        for place in range(1 + number % 3):
            uris.append(str(folder / f"{name}-{place}.jpg"))
            content = picture((5 * number + place) % 20)
            Path(uris[-1]).write_bytes(content[:40] if number % 7 == place else content)
        products.append(
            {
                "product_id": name, "title": None if number % 5 == 0 else " ".join(path), "image_uris": uris,
                "category_path": path, "split": ("val", "test")[number % 2],
                "category_paths": [path, TAXONOMY.leaves[(number + 1) % 4]] if number % 6 == 0 else None,
            }
        )  # fmt: skip
        ids = image_ids([name] * len(uris), uris).tolist()
        images += [{"image_id": one, "product_id": name, "image_uri": uri} for one, uri in zip(ids, uris, strict=True)]
    for name, table, schema in (("products", products, PRODUCTS), ("images", images, IMAGES)):
        (folder / "catalog" / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(table, schema=schema), folder / "catalog" / name / "0.parquet")
    (folder / "catalog" / "taxonomy.json").write_text(TAXONOMY.to_json())
    labels = LabelSpace(TAXONOMY)
    members = {name: str(folder / f"of-{name}") for name in ("picture", "title")}
    make_text_artifact(members["title"], TAXONOMY, "title", ["men", "women", "shirts", "jackets", "dresses"], labels)
    torch.manual_seed(3)
    network = Classifier(ClassifierConfig(classes=len(labels), backbone="resnet18", image_size_px=32, hidden_dim=8))
    save_artifact(
        members["picture"], network, vocabulary=Vocabulary.of(TAXONOMY), taxonomy=TAXONOMY, metrics={}, labels=labels
    )
    shape = FusionConfig(modalities="picture+title", outputs=len(labels), policy="mean", target="labels")
    save_joint_artifact(
        str(folder / "fused"), build_fusion(shape), members, taxonomy=TAXONOMY, metrics={}, labels=labels
    )
    return folder


def command(*words: Any) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def run(shop: Path) -> Path:
    """The catalogue scored with thresholds that its products of val chose."""
    command("calibrate", "--model", shop / "fused", "--catalog", shop / "catalog")
    command(
        "score", "--catalog", shop / "catalog", "--model", shop / "fused", "--output", shop / "run",
        "--precision", "float32", "--max-quarantine-fraction", 1,
    )  # fmt: skip
    return shop / "run"


def test_labels_are_applied_as_they_are_measured(shop: Path, run: Path) -> None:
    command("evaluate", "--run", run)
    command(
        "evaluate-labels", "--catalog", shop / "catalog", "--output", shop / "measured", "--fused", shop / "fused",
        "--precision", "float32",
    )  # fmt: skip
    figures = json.loads((run / "evaluation" / "metrics.json").read_text())["test"]
    (measured,) = pq.read_table(shop / "measured" / "models.parquet").to_pylist()
    assert 0 < figures["micro_f1"] < 1
    for name in ("micro_f1", "micro_precision", "micro_recall"):
        assert figures[name] == pytest.approx(measured[name], abs=1e-6)
    assert figures["products"] == PRODUCT_COUNT // 2  # each once, whatever its pictures
    labels = pq.read_table(run / "evaluation" / "labels.parquet").to_pylist()
    missed = {row["label"]: row["missed"] for row in labels if row["split"] == "test"}
    table = pq.read_table(shop / "measured" / "missed.parquet").to_pylist()
    assert missed == {row["label"]: row["missed"] for row in table}


def test_each_picture_has_an_outcome_and_each_product_its_labels(shop: Path, run: Path) -> None:
    artifact = load_artifact(str(shop / "fused"), target="labels")
    assert artifact.labels is not None
    least = dict(zip(artifact.labels.names, artifact.thresholds, strict=True))
    assert set(artifact.thresholds) != {0.5}
    account = json.loads((run / "run.json").read_text())
    counts = account["counts"]
    assert (
        counts["input"]
        == counts["scored"] + counts["filtered"] + counts["quarantined"]
        == len(rows(run.parent / "catalog", "images"))
    )
    assert 0 < counts["quarantined"] + sum(account["without_picture_by_code"].values()) < counts["input"]
    assert account["identity"]["thresholds"] == least
    predictions, products = rows(run, "predictions"), rows(run, "products")
    for row in (*predictions, *products):
        assert row["category_path"] is row["probability"] is row["alternatives"] is row["outside_probability"] is None
        for label in row["labels"] or ():
            assert label["probability"] >= least[label["label"]]
        for label in row["other_labels"] or ():
            assert 0.0005 < label["probability"] < least[label["label"]]
    for product in products:
        own = [row for row in predictions if row["product_id"] == product["product_id"]]
        own = [row for row in own if row["picture_error"] is None] or own[:1]
        assert (product["labels"] is None) == (not own)
        chances = {
            one["label"]: one["probability"] for one in (product["labels"] or []) + (product["other_labels"] or [])
        }
        for label, chance in chances.items():
            listed = [
                one["probability"]
                for row in own
                for one in (*row["labels"], *row["other_labels"])
                if one["label"] == label
            ]
            assert chance == pytest.approx(sum(listed) / len(own))


def test_what_has_not_changed_is_carried_over(shop: Path, run: Path) -> None:
    command(
        "score", "--catalog", shop / "catalog", "--model", shop / "fused", "--output", shop / "again",
        "--precision", "float32", "--max-quarantine-fraction", 1, "--previous", run, "--target-precision", 0.5,
    )  # fmt: skip
    account = json.loads((shop / "again" / "run.json").read_text())
    assert account["previous"]["carried"]["predictions"] == len(rows(run, "predictions"))
    assert account["counts"]["scored"] == 0
    before, after = (
        {
            row["product_id"]: sorted((row["labels"] or []) + (row["other_labels"] or []), key=str)
            for row in rows(one, "products")
        }
        for one in (run, shop / "again")
    )
    assert after == before  # the same probabilities, cut elsewhere
    assert account["identity"]["thresholds"] != json.loads((run / "run.json").read_text())["identity"]["thresholds"]


def test_labels_are_exported(shop: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ending in ("jsonl", "csv"):
        command("export", "--run", run, "--output", shop / f"answers.{ending}")
    lines = [json.loads(line) for line in (shop / "answers.jsonl").read_text().splitlines()]
    products = {row["product_id"]: row for row in rows(run, "products")}
    assert {line["product_id"] for line in lines} == set(products)
    for line in lines:
        wanted = [one["label"] for one in products[line["product_id"]]["labels"] or ()]
        assert [one["label"] for one in line["labels"] or ()] == wanted
    some = next(row for row in products.values() if len(row["labels"] or ()) > 1)
    assert " | ".join(one["label"] for one in some["labels"]) in (shop / "answers.csv").read_text("utf-8-sig")


def test_what_has_no_meaning_for_labels_is_refused(
    shop: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taxonomy = shop / "catalog" / "taxonomy.json"
    commands = {
        ("taxonomy", "migrate", "--run", run, "--old", taxonomy, "--new", taxonomy, "--output", tmp_path / "new"):
            "a run of labels, which stand in no place of a taxonomy",
        ("evaluate", "--run", run, "--model", shop / "fused"): "--model and --embeddings are for runs of paths",
        ("score", "--catalog", shop / "catalog", "--output", tmp_path, "--model", shop / "fused", "--within", "Men"):
            "leave --taxonomy and --within out",
    }  # fmt: skip
    for words, reason in commands.items():
        assert main([str(word) for word in words]) == 2
        assert reason in capsys.readouterr().err


def test_a_plan_tries_labels(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("score", "--catalog", shop / "catalog", "--model", shop / "fused", "--output", tmp_path / "run", "--plan")
    assert main([str(word) for word in words]) in (0, 3)
    assert "pictures" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
