"""Models of texts over a sentence encoder, and those that spell paths, for real: trained, fused and scored."""

from pathlib import Path
from typing import Any

import pytest
import torch

from atlas_ray.artifacts import load_artifact, read_sentence_encoder
from atlas_ray.cli.main import main
from atlas_ray.errors import OutputError
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.training.run import train
from atlas_ray.training.settings import TextTraining
from tests.support.parts import rows

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("local_ray")
SMALL: dict[str, Any] = {"batch_size": 16, "epochs": 2, "hidden_dim": 16}


@pytest.fixture(scope="module")
def titles(described: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("titles") / "model")
    train(TextTraining(catalog=described, output=output, field="title", encoder=encoder, **SMALL))
    return output


@pytest.fixture(scope="module")
def descriptions(described: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("descriptions") / "model")
    places = ["--catalog", described, "--output", output, "--field", "description"]
    sizes = ["--epochs", "2", "--batch-size", "16", "--embedding-dim", "8", "--filters", "12", "--hidden-dim", "16"]
    assert main(["train", "text-encoder-decoder", *places, *sizes]) == 0
    return output


def test_a_sentence_encoder_is_trained_further(titles: str, described: str, encoder: str) -> None:
    artifact = load_artifact(titles)
    assert (artifact.kind, artifact.texts) == ("sentence", ("title",))
    assert [epoch["encoder_lr"] for epoch in artifact.metrics["history"]] != [0.0, 0.0]
    before = read_sentence_encoder(encoder, "title").model.state_dict()
    after = artifact.model.encoder.state_dict()
    assert any(not value.equal(before[name]) for name, value in after.items())
    config = TextTraining(catalog=described, output=titles, field="title", encoder=encoder, **SMALL)
    assert train(config).already_done
    with pytest.raises(OutputError, match="prefix = None, this one has 'query: '"):
        train(TextTraining(catalog=described, output=titles, field="title", encoder=encoder, prefix="query: ", **SMALL))


@pytest.mark.slow  # an end-to-end run of half a minute and more
def test_both_are_members_of_a_fused_model(titles: str, descriptions: str, described: str, tmp_path: Path) -> None:
    speller = load_artifact(descriptions)
    assert (speller.kind, speller.spells, speller.texts) == ("text-encoder-decoder", True, ("description",))
    fused, output = str(tmp_path / "fused"), tmp_path / "run"
    members = ["--title", titles, "--description", descriptions]
    assert main(["train", "fusion", "--catalog", described, *members, "--policy", "mean", "--output", fused]) == 0
    command = ["score", "--catalog", described, "--model", fused, "--output", str(output), "--precision", "float32"]
    assert main([*command, "--max-quarantine-fraction", "1"]) == 0
    products = {row["product_id"]: row for row in rows(described, "products")}
    answers = [row for row in rows(output, "products") if row["category_path"]]
    assert {row["product_id"] for row in answers} == {
        name for name, row in products.items() if (row["title"] or "").strip() or row["description"]
    }
    texts = {field: [products[row["product_id"]][field] for row in answers] for field in ("title", "description")}
    predictor = PathPredictor(load_artifact(fused), PredictorConfig(precision="float32"))
    found, refused = predictor([None] * len(answers), texts)
    assert refused == {}
    torch.testing.assert_close(
        torch.tensor(found["probability"].to_pylist()), torch.tensor([row["probability"] for row in answers]),
        atol=1e-4, rtol=0,
    )  # fmt: skip
