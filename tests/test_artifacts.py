import json
import shutil
from pathlib import Path

import pytest
import torch

from atlas_ray import storage
from atlas_ray.artifacts import check_target, load_artifact
from atlas_ray.artifacts.files import content_id
from atlas_ray.errors import ArtifactError
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from tests.parts import make_artifact, make_text_artifact


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


def test_damage_is_told(copy: Path) -> None:
    weights = copy / "weights.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:1000], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"weights.safetensors is damaged"):
            load_artifact(str(copy))


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


def test_another_taxonomy_is_refused(copy: Path) -> None:
    (copy / "taxonomy.json").write_text(Taxonomy([("A", "B")], name="other").to_json())
    with pytest.raises(ArtifactError, match="the model was trained on"):
        load_artifact(str(copy))


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
            ArtifactError, match="a model of labels, not of category paths; `atlas-ray evaluate-labels`"
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
    with pytest.raises(ArtifactError, match="a model of category paths, not of labels; `atlas-ray score` asks it"):
        load_artifact(small_model, target="labels")
