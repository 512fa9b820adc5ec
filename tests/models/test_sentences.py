"""Sentence encoders of others: their numbers, their folders, their artifacts, and what is refused."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atlas_ray.artifacts import load_network, read_sentence_encoder
from atlas_ray.artifacts.sentence_folders import PACKAGES
from atlas_ray.embedding.encoders import EncoderSource
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.modalities.tokens import NO_TOKEN, TokenIndex
from atlas_ray.models.sentences import FAMILIES, SentenceConfig
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from tests.support.sentences import make_sentence_folder, write_tokenizer

pytest.importorskip("transformers")
FLOAT32 = PredictorConfig(precision="float32", batch_size=4)
TEXTS = ["Red shirt", "blue SAREE for women", "red shirt", "trousers"]
MEAN = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sentences") / "encoder"
    make_sentence_folder(place, pooling=MEAN)
    return place


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def vectors(uri: Path, texts: list[str] = TEXTS, field: str = "title", prefix: str | None = None) -> Any:
    found, refused = Embedder(read_sentence_encoder(str(uri), field, prefix=prefix), FLOAT32).embed(
        [None] * len(texts), {field: texts}
    )
    assert refused == {}
    return found


def unit(values: Any) -> Any:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.long
@pytest.mark.parametrize("model_type", FAMILIES)
def test_vectors_are_those_of_transformers(model_type: str, tmp_path: Path) -> None:
    network = make_sentence_folder(tmp_path / "encoder", model_type)
    for text, vector in zip(TEXTS, vectors(tmp_path / "encoder"), strict=True):
        tokens = TokenIndex((tmp_path / "encoder/tokenizer.json").read_bytes(), length=12).encode([text.lower()])[0]
        with torch.no_grad():
            if model_type.startswith("siglip"):
                padded = torch.from_numpy(np.where(tokens == NO_TOKEN, 0, tokens).astype(np.int64))[None]
                whole = network.get_text_features(input_ids=padded)
                expected = getattr(whole, "pooler_output", whole)[0].numpy()
            else:
                ids = torch.from_numpy(tokens[tokens != NO_TOKEN].astype(np.int64))[None]
                expected = (
                    network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0).numpy()
                )
        assert vector == pytest.approx(unit(expected), abs=1e-5)


def test_the_folder_says_how_texts_are_read(tmp_path: Path) -> None:
    for name, pooling in (("cls", {"pooling_mode_cls_token": True}), ("max", {"pooling_mode": "max"})):
        make_sentence_folder(tmp_path / name, pooling=pooling, prompts={"document": "x ", "query": "query: "})
    folder = tmp_path / "cls"
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    config = read_sentence_encoder(str(folder), "description").model.config
    assert (config.pooling, config.prefix, config.max_tokens, config.field) == ("cls", "query: ", 7, "description")
    assert not np.allclose(vectors(folder), vectors(folder, prefix=""))
    np.testing.assert_allclose(
        vectors(folder), vectors(folder, [f"query: {text}" for text in TEXTS], prefix=""), atol=1e-6
    )
    assert read_sentence_encoder(str(tmp_path / "max"), "title").model.config.max_tokens == 40
    assert not np.allclose(vectors(folder), vectors(tmp_path / "max"))


def test_a_text_is_read_alone_and_without_markup(folder: Path) -> None:
    found = vectors(folder)
    assert found[0] == pytest.approx(found[2], abs=1e-6)  # one is read, both have its vector
    for text, vector in zip(TEXTS, found, strict=True):
        assert vectors(folder, [f"<p>{text}&nbsp;</p>"])[0] == pytest.approx(vector, abs=1e-5)
    assert np.linalg.norm(vectors(folder, ["\ud800 half", "x " * 9000]), axis=1) == pytest.approx(1, abs=1e-5)


def test_an_artifact_is_read_as_it_was_saved(folder: Path, tmp_path: Path) -> None:
    network = read_sentence_encoder(str(folder), "title")
    source = EncoderSource(str(folder), field="title").keep(network, str(tmp_path / "kept"))
    again = source.load()
    assert (again.id, again.kind, again.modalities, again.feature_widths, again.image_size_px) == (
        network.id, "sentence-encoder", ("title",), (16,), 0,
    )  # fmt: skip
    found, _ = Embedder(again, FLOAT32).embed([None] * 4, {"title": TEXTS})
    np.testing.assert_array_equal(found, vectors(folder))
    assert read_sentence_encoder(str(folder), "description").id != network.id
    (tmp_path / "kept" / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer.json is damaged: its sha256 is not the one in model.json"):
        load_network(str(tmp_path / "kept"))


def test_no_code_of_a_folder_is_run(copied: Path, tmp_path: Path) -> None:
    before = vectors(copied)
    ran = tmp_path / "ran"
    (copied / "modeling_evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((copied / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"}}
    config |= {"attn_implementation": "kernels-community/flash-attn", "_attn_implementation": "flash_attention_2"}
    (copied / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(vectors(copied), before)
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil(str(ran)), 2))
    with pytest.raises(ArtifactError, match=r"pytorch_model.bin: not a state dict of tensors"):
        vectors(copied)
    assert not ran.exists()


class _Evil:
    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return open, (self.place, "w")


def test_weights_of_other_layouts_are_found(copied: Path, folder: Path) -> None:
    import safetensors.torch

    state = safetensors.torch.load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    renamed = {f"bert.{name}": value.half() for name, value in state.items()} | {"cls.predictions": torch.zeros(3)}
    torch.save(renamed, copied / "pytorch_model.bin")
    np.testing.assert_allclose(vectors(copied), vectors(folder), atol=1e-2)


def change_config(**fields: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | fields))

    return change


def write(name: str, text: str) -> Callable[[Path], Any]:
    return lambda place: (place / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda place: (place / "config.json").unlink(), "no config.json; expected the folder of a sentence encoder"),
        (write("config.json", "[1]"), "config.json holds a list; expected an object"),
        (write("config.json", "{"), "config.json is not JSON"),
        (change_config(model_type="gpt2"), "model_type is 'gpt2'; expected one of albert, "),
        (change_config(num_hidden_layers=10**9), "num_hidden_layers of the transformer is 1000000000, which is out of"),
        (change_config(hidden_size=17), "no transformer can be built from its configuration: "),
        (change_config(hidden_act="evil"), "no transformer can be built from its configuration: "),
        (change_config(vocab_size=3_000_000, hidden_size=2000), r"the transformer has 6,\d+,\d+,\d+ weights"),
        (change_config(intermediate_size=8), "model.safetensors: not the weights of the network in config"),
        (lambda place: (place / "tokenizer.json").unlink(), "no tokenizer.json; transformers.AutoTokenizer"),
        (write("tokenizer.json", '{"version": "1.0"}'), "tokenizer.json holds no tokenizer"),
        (lambda place: write_tokenizer(place, ("more",)), "tokenizer.json numbers 24 tokens; the network knows 23"),
        (lambda place: (place / "model.safetensors").unlink(), "no weights; expected one of model.safetensors, "),
        (write("model.safetensors", "x"), "model.safetensors: not a state dict of tensors"),
        (write("modules.json", '[{"type": "sentence_transformers.models.Dense"}]'), "has the module 'Dense'"),
        (write("modules.json", '[{"type": "x.Pooling", "path": "../.."}]'), r"modules.json has the path '\.\./\.\.'"),
        (write("modules.json", "[3]"), "modules.json holds no list of modules"),
        (write("1_Pooling/config.json", '{"pooling_mode_weightedmean_tokens": true}'), "asks for weightedmean_tokens"),
    ],
)  # fmt: skip
def test_what_is_no_sentence_encoder_is_refused(change: Callable[[Path], Any], reason: str, copied: Path) -> None:
    change(copied)
    with pytest.raises(ArtifactError, match=reason):
        read_sentence_encoder(str(copied), "title")


def test_settings_that_do_not_go_together_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="expected what makes the vectors"):
        EmbedConfig(catalog="c", output="o")
    with pytest.raises(ConfigError, match="prefix is 'query: ', which is for --encoder"):
        EmbedConfig(catalog="c", output="o", model="m", prefix="query: ")
    with pytest.raises(ConfigError, match="image_size_px is 64, which is for pictures"):
        EncoderSource(str(folder), 64, "title").load()
    with pytest.raises(ConfigError, match="encoder is 'package:other'; expected a folder, or package:minilm"):
        read_sentence_encoder("package:other", "title")
    with pytest.raises(ConfigError, match="model_type is 'None'"):
        SentenceConfig(field="title", transformer="{}", pooling="mean", max_tokens=9)


@pytest.mark.long
def test_a_package_is_read_without_running_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tokenizers")
    network = read_sentence_encoder("package:minilm", "title")
    assert (network.feature_widths, network.model.config.pooling, network.model.config.max_tokens) == (
        (384,),
        "mean",
        256,
    )
    found, _ = Embedder(network, FLOAT32).embed(
        [None] * 3, {"title": ["crimson shirt", "red top for men", "steel pan"]}
    )
    assert found[0] @ found[1] > found[0] @ found[2] + 0.2
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(PACKAGES, "minilm", ("no_such_package", "minilm"))
    with pytest.raises(ArtifactError, match=r"which is not installed; pip install 'atlas-ray\[minilm\]' brings it"):
        read_sentence_encoder("package:minilm", "title")
