"""Encoder-decoders of titles: what attention looks at, what is spelled, their artifacts, and that they learn."""

from pathlib import Path
from typing import Any

import pytest
import torch

from atlas_ray.artifacts import load_artifact, save_artifact
from atlas_ray.cli.main import main
from atlas_ray.decoding.exact import exact_search
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.errors import ConfigError
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.modalities.tokens import TextIndex
from atlas_ray.models.encoder_decoder import DecoderStep
from atlas_ray.models.text_encoder_decoder import TextEncoderDecoder
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.reports.explainer import explain_text
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie
from atlas_ray.training.networks import load_weights, sentence_encoder_of, sentence_shape
from atlas_ray.training.objectives import EncoderDecoderObjective, build_objective
from atlas_ray.training.settings import CNN, TextEncoderDecoderTraining
from tests.support.sentences import make_sentence_folder

FLOAT32 = PredictorConfig(precision="float32", batch_size=4)
TAXONOMY = Taxonomy([("Women", "Sarees"), ("Women", "Shirts"), ("Men", "Shirts")], name="shop")
TREE = TrieTensors(compile_trie(TAXONOMY, Vocabulary.of(TAXONOMY)))
WORDS = ["red", "blue", "shirt", "saree", "for", "men", "women"]
TEXTS = ["blue saree", "Red shirt for women", "shirt for men, red, red and red"]
CPU = torch.device("cpu")
KINDS = [(CNN, "lstm"), (CNN, "transformer"), ("sentences", "lstm")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("sentences") / "encoder"
    make_sentence_folder(place)
    return str(place)


@pytest.fixture(params=KINDS, ids=["-".join(kind) for kind in KINDS])
def built(request: pytest.FixtureRequest) -> tuple[EncoderDecoderObjective, TextIndex]:
    encoder, decoder = request.param
    folder = encoder if encoder == CNN else request.getfixturevalue("folder")
    return objective_of(folder, decoder=decoder)


def objective_of(encoder: str, **more: Any) -> tuple[EncoderDecoderObjective, TextIndex]:
    settings: dict[str, Any] = {
        "embedding_dim": 8,
        "filters": 12,
        "hidden_dim": 16,
        "dropout": 0.0,
        "encoder_lr": 1e-3,
    } | more
    config = TextEncoderDecoderTraining(catalog="c", output="o", field="title", encoder=encoder, **settings)
    torch.manual_seed(0)
    sentences = sentence_encoder_of(config)
    index = sentences.tokens if sentences else WordIndex(WORDS, "title")
    assert index is not None
    shape = sentence_shape(config, sentences, TAXONOMY, None) if sentences else None
    objective = build_objective(config, TAXONOMY, CPU, index, shape)
    load_weights(objective.network, config)
    assert isinstance(objective, EncoderDecoderObjective)
    return objective.eval(), index


def encoded(index: TextIndex, texts: list[str]) -> torch.Tensor:
    return torch.from_numpy(index.encode(texts))


@torch.inference_mode()
def test_a_text_is_read_alone_and_to_its_end(built: tuple[EncoderDecoderObjective, TextIndex]) -> None:
    objective, index = built
    network = objective.network
    paths = torch.tensor([Vocabulary.of(TAXONOMY).encode(path) for path in TAXONOMY.leaves])
    inputs = encoded(index, TEXTS)
    together, weights = network(inputs, paths)
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 2))
    for row, text in enumerate(TEXTS):
        alone, looked = network(encoded(index, [text]), paths[[row]])
        torch.testing.assert_close(together[[row]], alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(weights[[row], :, : looked.shape[2]], looked, atol=1e-5, rtol=1e-4)
        assert not weights[row, :, looked.shape[2] :].any()
    maps = network.attention_maps(network.encode(inputs), paths)
    torch.testing.assert_close(maps, weights[:, :, None])
    assert network(encoded(index, [""]), paths[:1])[0].isfinite().all()


@pytest.mark.long
def test_it_learns_to_spell_the_paths(built: tuple[EncoderDecoderObjective, TextIndex]) -> None:
    objective, index = built
    optimizer = torch.optim.AdamW(objective.parameters(), 3e-2)
    inputs, labels = encoded(index, TEXTS), torch.arange(3)
    for _ in range(60):
        optimizer.zero_grad()
        objective(inputs, labels).mean().backward()
        optimizer.step()
    assert objective.evaluate(inputs, labels)[1].tolist() == [0, 1, 2]


def test_a_look_at_every_word_is_asked_for_where_it_is_set() -> None:
    losses = []
    for weight in (0.0, 2.0):
        objective, index = objective_of(CNN, attention_regularization=weight)
        losses.append(objective(encoded(index, TEXTS), torch.arange(3)))
    network = objective.network
    weights = network(encoded(index, TEXTS), objective.targets[:3])[1]
    for row, length in enumerate((2, 4, 7)):
        looked = weights[row, :, :length].sum(0)  # every path has two names and an end
        torch.testing.assert_close(losses[1][row] - losses[0][row], 2 * ((1 - looked) ** 2).mean())


def test_the_words_of_each_level_are_told(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for encoder, pieces in ((CNN, ["blue", "saree"]), (folder, ["[CLS]", "blue", "saree", "[SEP]"])):
        objective, index = objective_of(encoder)
        uri = str(tmp_path / str(len(pieces)))
        save_artifact(
            uri, objective.network, vocabulary=Vocabulary.of(TAXONOMY), taxonomy=TAXONOMY, metrics={}, words=index
        )
        answer, levels = explain_text(uri, {"title": ["blue saree"]}, config=FLOAT32)
        assert len(levels) == len(answer["category_path"]) == 2
        for level in levels:
            assert sorted(word for word, _ in level) == sorted(pieces)
            assert sum(share for _, share in level) == pytest.approx(1, abs=1e-5)
            assert level[0][1] == max(share for _, share in level)
        with pytest.raises(ConfigError, match=r"reads the title; give one with --title"):
            explain_text(uri, {"title": [None]})
        assert main(["explain", "--model", uri, "--title", "blue saree", "--precision", "float32"]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        word, share = levels[0][0]
        assert first.startswith(
            f"{answer['level_probabilities'][0]:.4f}  {answer['category_path'][0]}: {word} {share:.2f}, "
        )


def test_an_artifact_answers_as_the_network(built: tuple[EncoderDecoderObjective, TextIndex], tmp_path: Path) -> None:
    objective, index = built
    network: Any = objective.network
    assert isinstance(network, TextEncoderDecoder)
    with torch.inference_mode():
        expected = exact_search(DecoderStep(network, network.encode(encoded(index, TEXTS))), TREE, top_k=3)
        seen = network.decoder.regions.mean(network.encode(encoded(index, TEXTS)).features)
    uri = str(tmp_path / "model")
    save_artifact(uri, network, vocabulary=Vocabulary.of(TAXONOMY), taxonomy=TAXONOMY, metrics={}, words=index)
    artifact = load_artifact(uri)
    assert artifact.spells
    assert (artifact.texts, artifact.image_size_px, artifact.feature_widths) == (("title",), 0, (seen.shape[1],))
    predictor = PathPredictor(artifact, FLOAT32)
    assert predictor.search == "exact"
    found, refused = predictor([None] * 4, {"title": [*TEXTS, None]})
    assert refused == {}
    assert found["category_path"].to_pylist()[3] is None
    assert found["probability"].to_pylist()[:3] == pytest.approx(expected.probability[:, 0].tolist(), abs=1e-5)
    women = PathPredictor(load_artifact(uri), FLOAT32, within=("Women",))
    answers = women([None] * 3, {"title": TEXTS})[0]["category_path"].to_pylist()
    assert {path[0] for path in answers} == {"Women"}
    vectors, _ = Embedder(load_artifact(uri), FLOAT32).embed([None] * 3, {"title": TEXTS})
    torch.testing.assert_close(torch.from_numpy(vectors), torch.nn.functional.normalize(seen), atol=1e-5, rtol=1e-4)
