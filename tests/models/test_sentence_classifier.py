"""Models of texts over a sentence encoder of others: their numbers, their artifacts, and what of them is learned."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atlas_ray.artifacts import load_artifact, read_sentence_encoder, save_artifact
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.taxonomy import Taxonomy, Vocabulary
from atlas_ray.training.networks import build_network, load_weights, sentence_encoder_of, sentence_shape
from atlas_ray.training.objectives import build_objective
from atlas_ray.training.settings import TextTraining
from atlas_ray.training.step import OptimizerStep
from tests.support.sentences import make_sentence_folder

pytest.importorskip("transformers")
FLOAT32 = PredictorConfig(precision="float32", batch_size=4)
TAXONOMY = Taxonomy([("Women", "Sarees"), ("Women", "Shirts"), ("Men", "Shirts")], name="shop")
TEXTS = ["Red shirt for men", "blue SAREE for women", "red shirt", "trousers"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("sentences") / "encoder"
    make_sentence_folder(place)
    return str(place)


def settings(folder: str, **more: object) -> TextTraining:
    return TextTraining(catalog="c", output="o", field="title", encoder=folder, hidden_dim=8, **more)  # type: ignore[arg-type]


def saved(folder: str, output: Path) -> str:
    config = settings(folder)
    encoder = sentence_encoder_of(config)
    assert encoder is not None
    shape = sentence_shape(config, encoder, TAXONOMY, None)
    torch.manual_seed(0)
    network = build_network(config, TAXONOMY, encoder.tokens, shape)
    load_weights(network, config)
    return save_artifact(
        str(output), network, vocabulary=Vocabulary.of(TAXONOMY), taxonomy=TAXONOMY, metrics={}, words=encoder.tokens
    )


def test_an_artifact_needs_nothing_else(folder: str, tmp_path: Path) -> None:
    model_id = saved(folder, tmp_path / "model")
    artifact = load_artifact(str(tmp_path / "model"))
    assert (artifact.id, artifact.kind, artifact.texts, artifact.feature_widths, artifact.image_size_px) == (
        model_id, "sentence", ("title",), (8,), 0,
    )  # fmt: skip
    assert {file.name for file in (tmp_path / "model").iterdir()} == {
        "model.json", "metrics.json", "taxonomy.json", "tokenizer.json", "weights.safetensors",
    }  # fmt: skip
    assert artifact.tokens is not None
    tokens = torch.from_numpy(artifact.tokens.encode(TEXTS))
    pooled = read_sentence_encoder(folder, "title").model(tokens)
    head = artifact.model.head
    with torch.inference_mode():
        expected = head.output(head.dense(pooled).relu()).softmax(1).amax(1)
    found, refused = PathPredictor(artifact, FLOAT32)([None] * 4, {"title": TEXTS})
    assert refused == {}
    assert found["probability"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-5)
    vectors, _ = Embedder(load_artifact(str(tmp_path / "model")), FLOAT32).embed([None] * 4, {"title": TEXTS})
    assert vectors.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer.json is damaged: its sha256 is not the one in model.json"):
        load_artifact(str(tmp_path / "model"))


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_an_encoder_is_trained_or_stays_as_it_is(folder: str, rate: float) -> None:
    config = settings(folder, encoder_lr=rate)
    encoder = sentence_encoder_of(config)
    assert encoder is not None
    assert encoder.tokens is not None
    objective = build_objective(config, TAXONOMY, CPU, encoder.tokens, sentence_shape(config, encoder, TAXONOMY, None))
    load_weights(objective.network, config)
    objective.train()
    for part in config.frozen_layers(objective.parts()[0]):
        part.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in objective.network.state_dict().items()}
    step = OptimizerStep(objective, config, CPU)
    losses = objective(torch.from_numpy(encoder.tokens.encode(TEXTS)), torch.tensor([2, 0, 1, 1]))
    losses.mean().backward()
    step.optimizer.step()
    changed = {name.partition(".")[0] for name, value in objective.network.state_dict().items() if
               not value.equal(before[name])}  # fmt: skip
    assert changed == ({"encoder", "head"} if rate else {"head"})
    layer = next(iter(objective.parts()[0].parameters()))
    assert (layer.grad is None) == (rate == 0)


def test_settings_of_the_other_encoder_are_refused(folder: str) -> None:
    assert settings(folder).encoder_lr == 5e-5
    assert TextTraining(catalog="c", output="o", field="title").encoder_lr == 1e-3
    assert settings("package:minilm").absolute().encoder == "package:minilm"
    assert settings("encoder").absolute().encoder.endswith("/encoder")
    with pytest.raises(ConfigError, match=r"word_vectors is 'glove.txt', which is for the encoder cnn"):
        settings(folder, word_vectors="glove.txt")
    with pytest.raises(ConfigError, match="prefix is 'query: ', which is for a sentence encoder"):
        TextTraining(catalog="c", output="o", field="title", prefix="query: ")
