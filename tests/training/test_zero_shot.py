"""Models of names alone: their texts, their numbers, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atlas_ray.artifacts import load_artifact, load_network, read_sentence_encoder, save_encoder
from atlas_ray.cli.main import main
from atlas_ray.errors import ArtifactError, ConfigError, OutputError
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.training.zero_shot import (
    TEMPLATES,
    ZeroShotTraining,
    mean_vectors,
    path_texts,
    prior_of,
    read_synonyms,
    read_templates,
    scale_of,
    train_zero_shot,
)
from tests.support.parts import make_artifact

pytest.importorskip("transformers")
FLOAT32 = PredictorConfig(precision="float32", batch_size=4)


@pytest.fixture(scope="module")
def taxonomy_file(garments: Taxonomy, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("taxonomy") / "taxonomy.json"
    file.write_text(garments.to_json())
    return str(file)


@pytest.fixture(scope="module")
def model(encoder: str, taxonomy_file: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("zero") / "model")
    assert main(["train", "zero-shot", "--encoder", encoder, "--taxonomy", taxonomy_file, "--output", output]) == 0
    return output


def test_a_path_has_the_texts_of_its_templates_and_synonyms() -> None:
    taxonomy = Taxonomy([("Men", "Shoes"), ("Women", "Shoes"), ("Toys",)], name="t")
    texts = path_texts(taxonomy, TEMPLATES, {("Men", "Shoes"): ["sneakers"], ("Men",): ["gents"]})
    assert texts == [
        (
            "Men Shoes", "Shoes for Men", "gents Shoes", "Shoes for gents", "Men sneakers", "sneakers for Men",
        ),
        ("Women Shoes", "Shoes for Women"),
        ("Toys", "Toys Toys", "Toys for Toys"),
    ]  # fmt: skip


def test_files_of_templates_and_synonyms_are_read(tmp_path: Path, garments: Taxonomy) -> None:
    file = tmp_path / "file"
    file.write_text("# ours\n{leaf} of the {parent}\n\n a {top} thing\n")
    assert read_templates(str(file)) == ("{leaf} of the {parent}", "a {top} thing")
    file.write_text("Jackets: [coat, blazer]\nMen > Western Wear > Shirts: tee\n")
    assert read_synonyms(str(file), garments) == {
        ("Men", "Western Wear", "Jackets"): ["coat", "blazer"],
        ("Men", "Ethnic Wear", "Jackets"): ["coat", "blazer"],
        ("Men", "Western Wear", "Shirts"): ["tee"],
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a thing", r"line 1: 'a thing'; expected a text with one or more of \{path\}, \{leaf\}, \{parent\}, \{top\}"),
        ("{leaf}\n{leaf.__class__}", r"line 2: "),
        ("{leaf!r:>99999999}", r"line 1: "),
        ("{{leaf}}", r"line 1: "),
        ("# nothing", "no template in it"),
    ],
)
def test_templates_that_name_nothing_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "templates").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_templates(str(tmp_path / "templates"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Hats: cap", "'Hats' is neither a name nor a path of the taxonomy 'garments'"),
        ("Shirts: 5", "'Shirts' has '5'; expected a text, or a list of texts"),
        ("Shirts: ['']", "expected a text, or a list of texts"),
        ("- a", "holds a list; expected lines"),
    ],
)
def test_synonyms_of_nothing_are_refused(text: str, reason: str, tmp_path: Path, garments: Taxonomy) -> None:
    (tmp_path / "synonyms").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_synonyms(str(tmp_path / "synonyms"), garments)


@pytest.mark.long
def test_answers_are_the_softmax_of_scaled_similarities(model: str, encoder: str, garments: Taxonomy) -> None:
    artifact = load_artifact(model)
    assert (artifact.kind, artifact.modalities, artifact.taxonomy) == ("head", ("title",), garments)
    assert artifact.encoder_id == read_sentence_encoder(encoder, "title").id == artifact.members["title"].id
    assert artifact.fitted is not None
    assert not artifact.fitted.uses(["a"]).any()
    titles = ["red shirt for men", "<b>blue</b> sarees"]
    found, refused = PathPredictor(artifact, FLOAT32)([None, None, None], {"title": [*titles, None]})
    assert refused == {}
    assert found["category_path"].is_null().to_pylist() == [False, False, True]
    network = read_sentence_encoder(encoder, "title")
    names = mean_vectors(network, path_texts(garments, TEMPLATES, {}))
    assert np.linalg.norm(names, axis=1) == pytest.approx(1, abs=1e-5)
    vectors, _ = Embedder(read_sentence_encoder(encoder, "title"), FLOAT32).embed([None] * 2, {"title": titles})
    logits = artifact.metrics["scale"] * vectors @ names.T
    posterior = np.exp(logits - logits.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    assert found["probability"].to_pylist()[:2] == pytest.approx(posterior.max(1).tolist(), abs=1e-3)
    best = [list(garments.leaves[place]) for place in posterior.argmax(1)]
    assert found["category_path"].to_pylist()[:2] == best


def test_vectors_in_bfloat16_leave_the_encoder_as_it_was(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlas_ray.prediction.vectors.choose_dtype", lambda *_: torch.bfloat16)
    network = read_sentence_encoder(encoder, "title")
    mean_vectors(network, [("Men Shoes",), ("Toys",)])
    assert {value.dtype for value in network.model.state_dict().values() if value.is_floating_point()} == {
        torch.float32
    }


def test_an_encoder_that_inference_has_changed_is_not_saved(encoder: str, tmp_path: Path) -> None:
    network = read_sentence_encoder(encoder, "title")
    network.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match=f"it was loaded as {network.id}"):
        save_encoder(str(tmp_path / "copy"), network)


def test_the_scale_is_that_of_all_pairs() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 8)) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = (vectors @ vectors.T)[~np.eye(40, dtype=bool)]
    assert scale_of(vectors) == pytest.approx(6 / similar.std())
    assert scale_of(vectors[:1]) == 1


def test_a_finished_model_is_left_alone(
    model: str, encoder: str, taxonomy_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "zero-shot", "--encoder", encoder, "--taxonomy", taxonomy_file, "--output", model]
    assert main(command) == 0
    assert "holds this run, finished; nothing to do (--fresh makes it anew)" in capsys.readouterr().out
    with pytest.raises(OutputError, match="holds a run with modality = 'title'"):
        train_zero_shot(ZeroShotTraining(encoder=encoder, taxonomy=taxonomy_file, output=model, modality="description"))
    again = load_artifact(model).id
    assert main([*command, "--fresh"]) == 0
    assert load_artifact(model).id == again


@pytest.mark.long
def test_a_prior_of_something_else_is_refused(model: str, encoder: str, garments: Taxonomy, tmp_path: Path) -> None:
    artifact = load_artifact(model)
    same = {"title": load_network(f"{model}/title")}
    assert prior_of(artifact, model, same, garments).equal(artifact.model.prior)
    more = {"description": read_sentence_encoder(encoder, "description"), **same}
    wide = prior_of(artifact, model, more, garments)
    assert wide[:, 16:].equal(artifact.model.prior)
    assert not wide[:, :16].any()
    with pytest.raises(ArtifactError, match="make both with the same --encoder and --prefix"):
        prior_of(artifact, model, {"title": read_sentence_encoder(encoder, "title", prefix="x ")}, garments)
    with pytest.raises(ArtifactError, match="run `atlas-ray train zero-shot` with that taxonomy"):
        prior_of(artifact, model, same, Taxonomy(garments.leaves[1:], name="other"))
    make_artifact(str(tmp_path / "other"), garments)
    with pytest.raises(ArtifactError, match="a encoder-decoder without a prior; `atlas-ray train zero-shot` makes one"):
        prior_of(load_artifact(str(tmp_path / "other")), "other", same, garments)
