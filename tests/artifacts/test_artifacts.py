import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from atlas_ray.artifacts import (
    check_target,
    load_artifact,
    load_zoom_artifact,
    save_artifact,
    save_joint_artifact,
    save_zoom_artifact,
    saving,
)
from atlas_ray.artifacts.files import content_id
from atlas_ray.errors import ArtifactError
from atlas_ray.io import storage
from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork, build_fusion
from atlas_ray.models.weights import read_state_dict
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from tests.support.parts import make_artifact, make_fused, make_text_artifact


@pytest.fixture
def copy(small_model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "copy"))


def test_what_was_saved_is_loaded(garments: Taxonomy, tmp_path: Path, s3: str) -> None:
    ids = set()
    for uri in (str(tmp_path / "a"), f"{s3}/artifact"):
        model_id = make_artifact(uri, garments, seed=3)
        artifact = load_artifact(uri)
        assert artifact.id == model_id
        assert artifact.taxonomy == garments
        ids.add(model_id)
    assert len(ids) == 1
    assert make_artifact(str(tmp_path / "b"), garments, seed=4) not in ids
    weights = load_artifact(str(tmp_path / "a")).model.state_dict()["decoder.fc.weight"]
    torch.testing.assert_close(weights, artifact.model.state_dict()["decoder.fc.weight"])


def change(path: Path, **fields: object) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | fields))


@pytest.mark.long
def test_damage_is_told(copy: Path) -> None:
    weights = copy / "weights.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:1000], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"weights.safetensors is damaged"):
            load_artifact(str(copy))


@pytest.mark.long
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "other"}, "kind 'other'"),
        ({"format": 99}, "format 99"),
        ({"vocabulary": ["a"]}, "model.json is damaged"),
        ({"config": {"vocabulary_size": 5}}, "does not give its id"),
        ({"id": "0" * 16}, "does not give its id"),
    ],
)
def test_another_model_json_is_refused(copy: Path, fields: dict[str, object], reason: str) -> None:
    change(copy / "model.json", **fields)
    with pytest.raises(ArtifactError, match=reason):
        load_artifact(str(copy))


@pytest.mark.long
def test_another_taxonomy_is_refused(copy: Path) -> None:
    (copy / "taxonomy.json").write_text(Taxonomy([("A", "B")], name="other").to_json())
    with pytest.raises(ArtifactError, match="the model was trained on"):
        load_artifact(str(copy))


@pytest.mark.long
@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "taxonomy.json", "metrics.json"])
def test_an_incomplete_folder_is_refused(copy: Path, name: str) -> None:
    storage.delete_file(str(copy / name))
    with pytest.raises(ArtifactError, match="not a complete model folder"):
        load_artifact(str(copy))


def test_a_model_of_labels(garments: Taxonomy, tmp_path: Path) -> None:
    space = LabelSpace(garments, ["Men", "Shirts"])
    uri = str(tmp_path / "model")
    make_text_artifact(uri, garments, "title", ["red"], space)
    artifact = load_artifact(uri, target="labels")
    assert artifact.labels is not None
    assert artifact.labels.names == space.names
    assert load_artifact(uri, target=None).id == artifact.id
    for refused in (load_artifact, lambda uri: check_target(uri, "path")):
        with pytest.raises(
            ArtifactError, match="a model of labels, not of category paths; name one that answers with paths"
        ):
            refused(uri)
    document = json.loads((tmp_path / "model" / "model.json").read_text())
    for labels, reason in (
        (["Men", "Hats"], "has no label 'Hats'"),
        (["Men"], "outputs is 2, but there are 1"),
        ({"Men": 1}, "no list of names"),
        (["Men", 3], "no list of names"),
        ([], "one label or more"),
    ):
        changed = {**document, "labels": labels}
        changed["id"] = content_id(changed)
        change(tmp_path / "model" / "model.json", **changed)
        with pytest.raises(ArtifactError, match=reason):
            load_artifact(uri, target="labels")


def test_a_model_of_paths_names_no_labels(small_model: str) -> None:
    with pytest.raises(ArtifactError, match="a model of category paths, not of labels; `train image-labels`"):
        load_artifact(small_model, target="labels")


def save_again(uri: str, source: str, name: str, value: float) -> None:
    """Save a model with one weight of a tensor changed."""
    artifact = load_artifact(source)
    with torch.no_grad():
        artifact.model.state_dict()[name].view(-1)[3] = value
    members = {part: f"{source}/{part}" for part in artifact.members}
    if isinstance(artifact.model, FusionNetwork):
        save_joint_artifact(uri, artifact.model, members, taxonomy=artifact.taxonomy, metrics={})
        return
    save_artifact(
        uri, artifact.model, vocabulary=artifact.vocabulary, taxonomy=artifact.taxonomy, metrics={},
        words=artifact.words,
    )  # fmt: skip


def of_pictures(folder: Path, taxonomy: Taxonomy) -> tuple[str, str]:
    make_artifact(str(folder), taxonomy)
    return str(folder), "decoder.fc.weight"


def of_pictures_in_a_statistic(folder: Path, taxonomy: Taxonomy) -> tuple[str, str]:
    make_artifact(str(folder), taxonomy)
    return str(folder), "encoder.layer2.0.bn1.running_var"


def of_titles(folder: Path, taxonomy: Taxonomy) -> tuple[str, str]:
    make_text_artifact(str(folder), taxonomy, "title", ["red", "blue"])
    return str(folder), "encoder.weight"


def of_all(folder: Path, taxonomy: Taxonomy) -> tuple[str, str]:
    fused = make_fused(folder, taxonomy)
    shape = FusionConfig(**(load_artifact(fused).model.config.to_dict() | {"policy": "ridge"}))
    members = {name: f"{fused}/{name}" for name in shape.names}
    save_joint_artifact(str(folder / "ridge"), build_fusion(shape), members, taxonomy=taxonomy, metrics={})
    return str(folder / "ridge"), "ridge.weight"


@pytest.mark.long
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("make", [of_pictures, of_pictures_in_a_statistic, of_titles, of_all])
def test_weights_that_are_no_numbers_are_neither_saved_nor_loaded(
    garments: Taxonomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path, Taxonomy], tuple[str, str]], value: float,
) -> None:  # fmt: skip
    source, name = make(tmp_path / "good", garments)
    reason = rf"bad: 1 of the \d+ weights of {name} are NaN or infinite"
    with pytest.raises(ArtifactError, match=reason):
        save_again(str(tmp_path / "bad"), source, name, value)
    assert not (tmp_path / "bad" / "model.json").exists()
    monkeypatch.setattr(saving, "check_finite", lambda *_: None)  # as an earlier version would have
    save_again(str(tmp_path / "bad"), source, name, value)
    with pytest.raises(ArtifactError, match=reason):
        load_artifact(str(tmp_path / "bad"))


def test_a_zoom_filter_of_no_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ZoomNetwork(ZoomConfig(image_size_px=22))
    name, weights = next(iter(network.state_dict().items()))
    weights.view(-1)[0] = float("nan")
    with pytest.raises(ArtifactError, match=name):
        save_zoom_artifact(str(tmp_path), network, metrics={})
    monkeypatch.setattr(saving, "check_finite", lambda *_: None)
    save_zoom_artifact(str(tmp_path), network, metrics={})
    with pytest.raises(ArtifactError, match=name):
        load_zoom_artifact(str(tmp_path))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_brought_weights_of_no_numbers_are_refused(tmp_path: Path, name: str) -> None:
    state = {"conv1.weight": torch.ones(3), "layer1.0.bn1.bias": torch.tensor([1.0, float("inf")])}
    if name.endswith("pth"):
        torch.save(state, tmp_path / name)
    else:
        safetensors.torch.save_file(state, tmp_path / name)
    with pytest.raises(ArtifactError, match=rf"{name}: 1 of the 2 weights of layer1.0.bn1.bias are NaN or infinite"):
        read_state_dict(str(tmp_path / name))
