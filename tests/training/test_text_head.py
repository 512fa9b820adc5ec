"""Heads over the vectors of a sentence encoder of others, for real: embedded, trained, scored and asked."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from atlas_ray.arrays import matrix
from atlas_ray.artifacts import load_artifact, load_network, read_sentence_encoder, save_encoder
from atlas_ray.cli.main import main
from atlas_ray.errors import EmbeddingError
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.schemas import embeddings
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.scoring.vectors import open_vectors
from atlas_ray.training.head import train_head
from atlas_ray.training.settings import HeadTraining
from tests.support.parts import rows

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("local_ray")
FLOAT32 = PredictorConfig(precision="float32", batch_size=32)
SMALL: dict[str, Any] = {"batch_size": 16, "epochs": 8}


@pytest.fixture(scope="module")
def titles(described: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("titles") / "run")
    command = ["embed", "--encoder", encoder, "--catalog", described, "--output", output]
    assert main([*command, "--precision", "float32", "--max-quarantine-fraction", "1"]) == 0
    return output


@pytest.fixture(scope="module")
def head(titles: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("head") / "model")
    train_head(HeadTraining(embeddings=titles, output=output, **SMALL))
    return output


def test_every_title_has_a_vector(titles: str, described: str, encoder: str) -> None:
    found = {row["product_id"] for row in rows(titles, "embeddings")}
    products = rows(described, "products")
    assert found == {row["product_id"] for row in products if (row["title"] or "").strip()}
    codes = {row["error_code"] for row in rows(titles, "quarantine")}
    assert "nothing_to_go_by" in codes
    network = load_network(f"{titles}/encoder")
    assert (network.kind, network.modalities, network.feature_widths) == ("sentence-encoder", ("title",), (16,))
    assert main(["similar", "--embeddings", titles, "--title", "red shirt", "--k", "1"]) == 0


def test_a_head_answers_from_titles_what_it_answers_from_vectors(
    head: str, titles: str, described: str, tmp_path: Path
) -> None:
    artifact = load_artifact(head)
    assert (artifact.kind, artifact.modalities, artifact.texts, artifact.image_size_px) == (
        "head", ("title",), ("title",), 0,
    )  # fmt: skip
    output = tmp_path / "run"
    score(ScoreConfig(catalog=described, model=head, embeddings=titles, output=str(output), predictor=FLOAT32))
    answers = rows(output, "predictions")
    account = json.loads((output / "run.json").read_text())
    assert account["counts"]["scored"] == len(rows(titles, "embeddings")) == len(answers)
    said = {row["product_id"]: row["title"] for row in rows(described, "products")}
    predictor = PathPredictor(artifact, FLOAT32)
    found, refused = predictor([None] * len(answers), {"title": [said[row["product_id"]] for row in answers]})
    assert refused == {}
    assert found["probability"].to_pylist() == pytest.approx([row["probability"] for row in answers], abs=1e-4)


@pytest.mark.slow  # an end-to-end run of half a minute and more
def test_a_head_starts_from_the_names(
    titles: str, described: str, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero, learned = str(tmp_path / "zero"), str(tmp_path / "learned")
    places = ["--taxonomy", f"{described}/taxonomy.json", "--output", zero]
    assert main(["train", "zero-shot", "--encoder", encoder, *places]) == 0
    command = ["train", "head", "--embeddings", titles, "--prior", zero, "--output", learned]
    assert main([*command, "--batch-size", "16", "--epochs", "1", "--decoder-lr", "10", "--schedule", "constant"]) == 0
    prior, head = load_artifact(zero), load_artifact(learned)
    assert head.model.prior.equal(prior.model.prior)
    assert head.metrics["val_accuracy"] >= head.metrics["prior_val_accuracy"]
    predictor, start = PathPredictor(head, FLOAT32), PathPredictor(prior, FLOAT32)
    told = capsys.readouterr().err
    assert "not calibrated: " in told  # few products are in the split `val`
    assert head.temperature == 1
    if "answers what its prior does" in told:
        texts = {"title": ["red shirt", "blue saree"]}
        assert predictor([None] * 2, texts)[0]["category_path"].equals(start([None] * 2, texts)[0]["category_path"])


@pytest.fixture(scope="module")
def descriptions(described: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `embed` leaves of the descriptions, which not all products have."""
    output = tmp_path_factory.mktemp("descriptions")
    network = read_sentence_encoder(encoder, "description")
    products = [row for row in rows(described, "products") if row["description"]]
    vectors, _ = Embedder(network, FLOAT32).embed(
        [None] * len(products), {"description": [row["description"] for row in products]}
    )
    columns = {name: [row[name] for row in products] for name in ("product_id", "category_path", "split")}
    table = pa.Table.from_pydict({**columns, "vector": vectors.tolist(), "model_id": [network.id] * len(products)})
    table = table.append_column("picture_error", pa.nulls(len(table), pa.string())).select(embeddings(16).names)
    (output / "embeddings").mkdir()
    pq.write_table(table.cast(embeddings(16)), output / "embeddings" / "0.parquet")
    identity = {"model_id": save_encoder(str(output / "encoder"), network), "width": 16, "catalog": described}
    account = {"job": "embed", "identity": identity, "counts": {"products": len(table)}}
    (output / "run.json").write_text(json.dumps(account))
    return str(output)


@pytest.mark.slow  # an end-to-end run of half a minute and more
def test_vectors_of_several_modalities_are_joined(
    titles: str, descriptions: str, described: str, tmp_path: Path
) -> None:
    both, head = f"{titles},{descriptions}", str(tmp_path / "head")
    train_head(HeadTraining(embeddings=both, output=head, **SMALL))
    artifact = load_artifact(head)
    assert artifact.modalities == ("title", "description")
    stored = [{row["product_id"]: row["vector"] for row in rows(run, "embeddings")} for run in (titles, descriptions)]
    assert stored[0].keys() != stored[1].keys()
    output = tmp_path / "run"
    score(ScoreConfig(catalog=described, model=head, embeddings=f"{descriptions},{titles}", output=str(output)))
    answers = rows(output, "predictions")
    assert sorted(row["product_id"] for row in answers) == sorted(stored[0].keys() | stored[1].keys())
    wide = [
        stored[0].get(row["product_id"], [0.0] * 16) + stored[1].get(row["product_id"], [0.0] * 16) for row in answers
    ]
    expected = PathPredictor(artifact, FLOAT32).predict_vectors(torch.tensor(wide))
    assert [row["probability"] for row in answers] == pytest.approx(expected["probability"].to_pylist(), abs=1e-5)
    alone = open_vectors(descriptions, artifact, head)
    assert alone.width == 32
    (table,) = alone.tables
    (first, *_) = table.batches()
    assert not matrix(first["vector"])[:, :16].any()
    with pytest.raises(EmbeddingError, match="vectors of the title; several --embeddings are of one modality each"):
        train_head(HeadTraining(embeddings=f"{titles},{titles}", output=str(tmp_path / "a")))
