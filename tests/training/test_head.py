"""A head from stored vectors, for real: embedded, trained, scored from vectors, and trained anew on other labels."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from atlas_ray.artifacts import load_artifact, load_network
from atlas_ray.cli.main import main
from atlas_ray.embedding.run import embed
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.errors import CatalogError, ConfigError, EmbeddingError, OutputError
from atlas_ray.evaluation.paths import evaluate
from atlas_ray.models import weights
from atlas_ray.models.backbones import BACKBONES
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.runs.embedded import open_embedded
from atlas_ray.runtime.shuffle import PRODUCT
from atlas_ray.schemas import PRODUCTS, embeddings
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.taxonomy import Taxonomy, read_taxonomy
from atlas_ray.training.head import VECTOR, _counted, _sides, relabelled, train_head
from atlas_ray.training.settings import HeadTraining
from tests.support.parts import rows

pytest.importorskip(BACKBONES["efficientnet_lite0"].package)
pytestmark = pytest.mark.usefixtures("local_ray")
MODEL = "package:efficientnet_lite0"
FLOAT32 = PredictorConfig(precision="float32", batch_size=32)
SMALL: dict[str, Any] = {"batch_size": 16, "epochs": 8}


@pytest.fixture(scope="module")
def vectors(catalog: str, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> str:
    output = str(tmp_path_factory.mktemp("vectors") / "run")
    embed(EmbedConfig(catalog=catalog, model=MODEL, image_size_px=64, output=output, predictor=FLOAT32))
    return output


@pytest.fixture(scope="module")
def head(vectors: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("head") / "model")
    train_head(HeadTraining(embeddings=vectors, output=output, **SMALL))
    return output


@pytest.fixture(scope="module")
def scored(catalog: str, vectors: str, head: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("scored") / "run"
    score(ScoreConfig(catalog=catalog, model=head, embeddings=vectors, output=str(output), predictor=FLOAT32))
    return output


def test_the_encoder_of_a_package_is_kept(vectors: str, catalog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows(vectors, "embeddings")
    assert pq.read_schema(next(Path(vectors, "embeddings").iterdir())).equals(embeddings(1280))
    assert len(found) == len(rows(catalog, "products")) - 5  # whose pictures are broken
    network = load_network(f"{vectors}/encoder")
    assert (network.kind, network.image_size_px) == ("encoder", 64)
    assert {row["model_id"] for row in found} == {network.id}
    monkeypatch.setattr(weights, "package_files", lambda _: [])
    (picture,) = next(row for row in rows(catalog, "products") if row["product_id"] == found[0]["product_id"])[
        "image_uris"
    ]
    assert main(["similar", "--embeddings", vectors, "--image", picture, "--k", "1"]) == 0


def test_a_head_learns_the_paths(head: str, vectors: str, catalog: str) -> None:
    artifact = load_artifact(head)
    assert artifact.kind == "head"
    assert artifact.taxonomy == read_taxonomy(f"{catalog}/taxonomy.json")
    calibration = artifact.metrics["calibration"]
    assert artifact.temperature == calibration["temperature"] != 1
    assert calibration["products"] == artifact.metrics["val_examples"]
    assert calibration["decisions"]
    sides = {row["product_id"]: row["split"] for row in rows(catalog, "products")}
    assert artifact.fitted is not None
    uses = dict(zip(sides, artifact.fitted.uses(list(sides)).tolist(), strict=True))
    known = {row["product_id"] for row in rows(vectors, "embeddings")}
    assert {sides[one] for one in known if uses[one]} == {"train", "val"}
    assert artifact.metrics["products"] == sum(sides[one] == "train" for one in known)
    mine = [row["vector"] for row in rows(vectors, "embeddings") if row["split"] == "train"]
    units = torch.tensor(np.array(mine, np.float32))
    torch.testing.assert_close(artifact.model.mean, units.mean(0), atol=1e-5, rtol=1e-4)
    scale = 1 / units.std(0, correction=0)
    varies = scale.isfinite() & (artifact.model.scale > 0)
    torch.testing.assert_close(artifact.model.scale[varies], scale[varies], atol=1e-2, rtol=1e-2)


def test_scoring_from_vectors_balances(scored: Path, catalog: str, vectors: str, head: str) -> None:
    stored = {row["product_id"]: row for row in rows(vectors, "embeddings")}
    predictions, products = rows(scored, "predictions"), rows(scored, "products")
    assert sorted(row["product_id"] for row in predictions) == sorted(stored)
    assert {row["image_uri"] for row in predictions} == {""}
    assert {row["product_id"] for row in products} == {row["product_id"] for row in rows(catalog, "products")}
    assert {row["product_id"] for row in products if row["category_path"] is None} == {
        row["product_id"] for row in products
    } - stored.keys()
    account = json.loads((scored / "run.json").read_text())
    assert account["counts"]["input"] == account["counts"]["scored"] == len(stored)
    assert account["counts"]["products_categorized"] == len(stored)
    assert account["identity"]["embeddings"] == vectors
    assert account["identity"]["encoder_id"] == load_network(f"{vectors}/encoder").id
    labelled = [row for row in products if row["category_path"] and row["true_category_path"]]
    right = sum(row["category_path"] == row["true_category_path"] for row in labelled)
    assert right >= 0.85 * len(labelled)  # the drawn pictures differ in shape
    predictor = PathPredictor(load_artifact(head), FLOAT32)
    ids = [row["product_id"] for row in predictions]
    table = predictor.predict_vectors(torch.tensor(np.array([stored[one]["vector"] for one in ids], np.float32)))
    assert [row["category_path"] for row in predictions] == table["category_path"].to_pylist()
    assert [row["probability"] for row in predictions] == pytest.approx(table["probability"].to_pylist(), abs=1e-5)
    uris = {row["product_id"]: row["image_uris"][0] for row in rows(catalog, "products") if row["image_uris"]}
    seen, refused = predictor([Path(uris[one]).read_bytes() for one in ids[:8]])
    assert refused == {}
    assert seen["probability"].to_pylist() == pytest.approx(table["probability"].to_pylist()[:8], abs=1e-4)


def test_a_finished_run_is_left_alone(
    scored: Path, catalog: str, vectors: str, head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ScoreConfig(catalog=catalog, model=head, embeddings=vectors, output=str(scored), predictor=FLOAT32)
    assert score(again).already_done
    with pytest.raises(OutputError, match="holds a run with embeddings = "):
        score(ScoreConfig(catalog=catalog, model=head, output=str(scored), predictor=FLOAT32))
    flags = ["--batch-size", str(SMALL["batch_size"]), "--epochs", str(SMALL["epochs"])]
    assert main(["train", "head", "--embeddings", vectors, "--output", head, *flags]) == 0
    printed = capsys.readouterr().out
    assert "holds this run, finished; nothing to do" in printed
    assert "calibrated on them: temperature " in printed


def test_other_labels_and_a_new_leaf_are_learned_from(catalog: str, vectors: str, tmp_path: Path) -> None:
    taxonomy = read_taxonomy(f"{catalog}/taxonomy.json")
    moved, new = taxonomy.leaves[0], ("Brand", "New")
    shutil.copytree(catalog, tmp_path / "catalog")
    products = [
        row | {"category_path": list(new), "split": "train"} if row["category_path"] == list(moved) else row
        for row in rows(catalog, "products")
    ]
    shutil.rmtree(tmp_path / "catalog" / "products")
    (tmp_path / "catalog" / "products").mkdir()
    pq.write_table(pa.Table.from_pylist(products, PRODUCTS), tmp_path / "catalog" / "products" / "0.parquet")
    changed = Taxonomy([new, *taxonomy.leaves[1:]], name="changed")
    embedded = open_embedded(vectors)
    stored = {row["product_id"]: row["vector"] for row in rows(vectors, "embeddings")}
    for catalog_now, there, own in (
        ("", taxonomy, rows(catalog, "products")),
        (str(tmp_path / "catalog"), changed, products),
    ):
        config = HeadTraining(embeddings=vectors, output="nowhere", catalog=catalog_now)
        expected = {
            row["product_id"]: (row["split"], there.leaf_positions.get(tuple(row["category_path"])))
            for row in own
            if row["category_path"] and row["product_id"] in stored
        }
        for split, side in zip(("train", "val"), _sides(config, [embedded], there), strict=True):
            found = {row["name"]: row for row in side.take_all()}
            assert {name: (split, row["label"]) for name, row in found.items()} == {
                name: place for name, place in expected.items() if place[0] == split
            }
            assert all(row["inputs"].tolist() == stored[name] for name, row in found.items())
    _, counts = _counted(_sides(config, [embedded], changed)[0], changed)
    assert counts[changed.leaf_positions[new]] == sum(row["category_path"] == list(new) for row in products)


@pytest.mark.slow  # an end-to-end run of half a minute and more
def test_labels_above_the_leaf_are_learned_from(
    catalog: str, vectors: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the labels say the top level alone: trained on, calibrated, scored and judged."""
    folder = tmp_path / "catalog"
    shutil.copytree(catalog, folder)
    shutil.rmtree(folder / "products")
    (folder / "products").mkdir()
    products = rows(catalog, "products")
    cut = {row["product_id"] for row in products[::2] if row["category_path"]}
    for row in products:
        row["category_path"] = row["category_path"][:1] if row["product_id"] in cut else row["category_path"]
    pq.write_table(pa.Table.from_pylist(products, PRODUCTS), folder / "products" / "0.parquet")
    known = {row["product_id"] for row in rows(vectors, "embeddings")}
    above = {split: sum(row["product_id"] in cut & known and row["split"] == split for row in products)
             for split in ("train", "val", "test")}  # fmt: skip
    assert all(above.values())
    model, run = str(tmp_path / "model"), str(tmp_path / "run")
    flags = ["--batch-size", "16", "--epochs", "8", "--balance", "sampling"]
    command = ["train", "head", "--embeddings", vectors, "--catalog", str(folder), "--output", model, *flags]
    assert main(command) == 0
    assert f"{above['train']} products are labelled above the leaf" in capsys.readouterr().out
    metrics = load_artifact(model).metrics
    assert metrics["examples_above_leaf"] == above["train"]
    assert metrics["calibration"]["products"] == metrics["val_examples"] > above["val"]
    score(ScoreConfig(catalog=str(folder), model=model, embeddings=vectors, output=run, predictor=FLOAT32))
    figures = evaluate(run)
    for split in ("train", "test"):
        labelled = sum(row["product_id"] in cut and row["split"] == split for row in products)
        assert figures[split].labelled_above == labelled
    found = {row["product_id"]: row["category_path"] for row in rows(run, "products") if row["category_path"]}
    whole = {row["product_id"]: row["category_path"] for row in rows(catalog, "products") if row["product_id"] in found}
    labelled = [name for name, path in whole.items() if path]
    assert sum(found[name] == whole[name] for name in labelled) >= 0.75 * len(labelled)  # the leaves that were cut, too


def test_vectors_take_the_labels_of_their_products() -> None:
    schema = pa.schema([("kind", pa.int8()), *(field.with_nullable(True) for field in embeddings(2))])
    table = pa.Table.from_pylist(
        [
            {"kind": VECTOR, "product_id": "a", "category_path": ["Old"], "split": "val", "vector": [1.0, 0.0]},
            {"kind": PRODUCT, "product_id": "b", "category_path": ["B"], "split": "train"},
            {"kind": PRODUCT, "product_id": "a", "category_path": ["New"], "split": "train"},
            {"kind": VECTOR, "product_id": "gone", "category_path": ["Old"], "split": "val", "vector": [0.0, 1.0]},
            {"kind": VECTOR, "product_id": "b", "vector": [0.6, 0.8]},
        ],
        schema,
    )
    found = {row["product_id"]: row for row in relabelled(table).to_pylist()}
    assert found.keys() == {"a", "b"}
    assert (found["a"]["category_path"], found["a"]["split"], found["a"]["vector"]) == (["New"], "train", [1.0, 0.0])
    assert found["b"]["category_path"] == ["B"]


def test_what_does_not_go_together_is_refused(
    catalog: str, vectors: str, head: str, small_model: str, tmp_path: Path
) -> None:
    places: dict[str, Any] = {"catalog": catalog, "embeddings": vectors, "output": str(tmp_path / "run")}
    with pytest.raises(EmbeddingError, match="of kind encoder-decoder, and only a head answers from vectors"):
        score(ScoreConfig(model=small_model, **places))
    other = tmp_path / "other"
    shutil.copytree(vectors, other)
    account = json.loads((other / "run.json").read_text())
    account["identity"]["model_id"] = "another"
    (other / "run.json").write_text(json.dumps(account))
    with pytest.raises(EmbeddingError, match=r"was made by model another, and the head in .* reads vectors of"):
        score(ScoreConfig(model=head, **places | {"embeddings": str(other)}))
    with pytest.raises(ConfigError, match="previous goes with pictures"):
        ScoreConfig(model=head, previous="run", **places)
    with pytest.raises(CatalogError, match="have a vector, and a batch has 4096"):
        train_head(HeadTraining(embeddings=vectors, output=str(tmp_path / "a"), batch_size=4096))
    shutil.rmtree(other / "encoder")
    with pytest.raises(EmbeddingError, match="keeps no copy of model another"):
        train_head(HeadTraining(embeddings=str(other), output=str(tmp_path / "a")))
