"""Artifacts written; `model.json` comes last and completes one."""

import hashlib
from collections.abc import Mapping
from typing import Any

import safetensors.torch

from atlas_ray.artifacts.files import FORMAT, WORDS, content_id, read_json, save_words, write_json
from atlas_ray.artifacts.fitted import file_of, save_fitted
from atlas_ray.artifacts.kinds import kind_of
from atlas_ray.errors import ArtifactError
from atlas_ray.formats.fitted import Fitted
from atlas_ray.io import storage
from atlas_ray.metrics.calibration import BOUNDS
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.models.path_model import PathModel
from atlas_ray.models.weights import check_finite
from atlas_ray.models.zoom import ZoomNetwork
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary
from atlas_ray.version import __version__


def save_artifact(
    uri: str,
    model: PathModel,
    *,
    vocabulary: Vocabulary,
    taxonomy: Taxonomy,
    metrics: dict[str, Any],
    words: WordIndex | None = None,
    labels: LabelSpace | None = None,
    fitted: Fitted | None = None,
) -> str:
    """Write an artifact and return its content id; `model.json` comes last and completes it.

    Raises:
        ArtifactError: if weights are NaN or infinite.
    """
    storage.write_bytes(storage.join(uri, "taxonomy.json"), taxonomy.to_json().encode())
    names = {"vocabulary": list(vocabulary.tokens), "taxonomy_id": taxonomy.id, **_labels_entry(labels)}
    names |= save_fitted(uri, fitted)
    if words is not None:
        names["words_sha256"] = save_words(uri, words)
    return _save(uri, model, names, metrics)


def save_fusion_artifact(
    uri: str,
    model: FusionNetwork,
    members: Mapping[str, str],
    *,
    taxonomy: Taxonomy,
    metrics: dict[str, Any],
    labels: LabelSpace | None = None,
    fitted: Fitted | None = None,
) -> str:
    """Write a fused model with copies of the artifacts that it fuses, and return its content id.

    Args:
        uri: The folder.
        model: The policy.
        members: The URI of each modality's artifact.
        taxonomy: That of all of them.
        metrics: What was measured.
        labels: What all of them name, if they name labels.
        fitted: The products that the models and the policy were fitted on, if that is known.
    """
    storage.write_bytes(storage.join(uri, "taxonomy.json"), taxonomy.to_json().encode())
    documents = {name: read_json(member, "model.json") for name, member in members.items()}
    for name, member in members.items():
        own = file_of(documents[name])
        for file in (
            *([own] if own else []),
            "weights.safetensors",
            "taxonomy.json",
            "metrics.json",
            WORDS,
            "model.json",
        ):
            if storage.exists(storage.join(member, file)):
                storage.write_bytes(storage.join(uri, name, file), storage.read_bytes(storage.join(member, file)))
    ids = {name: document["id"] for name, document in documents.items()}
    vocabulary = list(Vocabulary.of(taxonomy).tokens)
    names = {"vocabulary": vocabulary, "taxonomy_id": taxonomy.id, "members": ids, **_labels_entry(labels)}
    names |= save_fitted(uri, fitted)
    return _save(uri, model, names, metrics)


def _labels_entry(labels: LabelSpace | None) -> dict[str, Any]:
    return {"labels": list(labels.names)} if labels else {}


def save_zoom_artifact(uri: str, model: ZoomNetwork, *, metrics: dict[str, Any]) -> str:
    """Write a zoom filter's artifact and return its content id."""
    return _save(uri, model, {}, metrics)


def set_temperature(uri: str, temperature: float, metrics: dict[str, Any], fitted: Fitted | None = None) -> str:
    """Store the temperature of an artifact and what was measured with it; return its content id, which changes.

    Args:
        uri: Its folder.
        temperature: What its log-probabilities are divided by.
        metrics: What was measured.
        fitted: All that the model is fitted on now; None: as it is.

    Raises:
        ArtifactError: for a temperature that no model has.
    """
    if not BOUNDS[0] <= temperature <= BOUNDS[1]:
        raise ArtifactError(f"{uri}: temperature {temperature}; expected {BOUNDS[0]} to {BOUNDS[1]}")
    before = read_json(uri, "model.json")
    document = before | {"temperature": temperature} | save_fitted(uri, fitted)
    document["id"] = content_id(document)
    write_json(uri, "metrics.json", read_json(uri, "metrics.json") | {"calibration": metrics})
    write_json(uri, "model.json", document)
    if (old := file_of(before)) and old != file_of(document):
        storage.delete_file(storage.join(uri, old))
    return str(document["id"])


def _save(uri: str, model: PathModel | ZoomNetwork, names: dict[str, Any], metrics: dict[str, Any]) -> str:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    check_finite(state, uri)
    weights = safetensors.torch.save(state)
    document: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind_of(model),
        "config": model.config.to_dict(),
        **names,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    document["id"] = content_id(document)
    document["written_by"] = f"atlas_ray {__version__}"
    storage.write_bytes(storage.join(uri, "weights.safetensors"), weights)
    write_json(uri, "metrics.json", metrics)
    write_json(uri, "model.json", document)
    return str(document["id"])
