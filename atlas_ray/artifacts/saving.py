"""Artifacts written; `model.json` comes last and completes one."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch

from atlas_ray.artifacts.artifact import Network
from atlas_ray.artifacts.compiled import ENTRY, Files, files_of, save_compiled
from atlas_ray.artifacts.files import (
    FORMAT,
    TOKENS,
    WORDS,
    content_id,
    read_json,
    save_index,
    write_json,
)
from atlas_ray.artifacts.fitted import file_of, save_fitted
from atlas_ray.artifacts.kinds import kind_of
from atlas_ray.errors import ArtifactError
from atlas_ray.formats.fitted import Fitted
from atlas_ray.io import storage
from atlas_ray.metrics.calibration import BOUNDS
from atlas_ray.modalities.tokens import TextIndex, TokenIndex
from atlas_ray.models.encoder import EncoderNetwork
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.models.head import Head
from atlas_ray.models.path_model import PathModel
from atlas_ray.models.sentences import SentenceEncoder
from atlas_ray.models.weights import check_finite
from atlas_ray.models.zoom import ZoomNetwork
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary
from atlas_ray.version import __version__

FILES = ("weights.safetensors", "taxonomy.json", "metrics.json", WORDS, TOKENS)
"""The files of an artifact beside `model.json` that any of them may have."""
Saved = PathModel | EncoderNetwork | SentenceEncoder | ZoomNetwork
"""A network that an artifact holds."""


def save_artifact(
    uri: str,
    model: PathModel,
    *,
    vocabulary: Vocabulary,
    taxonomy: Taxonomy,
    metrics: dict[str, Any],
    words: TextIndex | None = None,
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
        names |= save_index(uri, words)
    return _save(uri, model, names, metrics)


def save_joint_artifact(
    uri: str,
    model: FusionNetwork | Head,
    members: Mapping[str, str | Network],
    *,
    taxonomy: Taxonomy,
    metrics: dict[str, Any],
    labels: LabelSpace | None = None,
    fitted: Fitted | None = None,
    temperature: float | None = None,
) -> str:
    """Write a model over others with copies of their artifacts, and return its content id.

    Args:
        uri: The folder.
        model: The policy that fuses them, or the head that reads their vectors.
        members: The URI of each modality's artifact, or its bare encoder.
        taxonomy: That of its answers.
        metrics: What was measured.
        labels: What it names, if it names labels.
        fitted: The products that all of it was fitted on, if that is known.
        temperature: As in `set_temperature`; None if it is not calibrated.
    """
    storage.write_bytes(storage.join(uri, "taxonomy.json"), taxonomy.to_json().encode())
    ids = {name: _save_member(member, storage.join(uri, name)) for name, member in members.items()}
    vocabulary = list(Vocabulary.of(taxonomy).tokens)
    names = {"vocabulary": vocabulary, "taxonomy_id": taxonomy.id, "members": ids, **_labels_entry(labels)}
    names |= save_fitted(uri, fitted)
    if temperature is not None:
        names["temperature"] = temperature
    return _save(uri, model, names, metrics)


def _save_member(member: str | Network, to: str) -> str:
    return copy_artifact(member, to) if isinstance(member, str) else save_encoder(to, member)


def _labels_entry(labels: LabelSpace | None) -> dict[str, Any]:
    return {"labels": list(labels.names)} if labels else {}


def copy_artifact(uri: str, to: str) -> str:
    """Copy an artifact with its members; `model.json` comes last and completes it. Return its content id."""
    document = read_json(uri, "model.json")
    for name in document.get("members", {}):
        copy_artifact(storage.join(uri, name), storage.join(to, name))
    own = file_of(document)
    for file in (*([own] if own else []), *files_of(document), *FILES, "model.json"):
        if storage.exists(storage.join(uri, file)):
            storage.write_bytes(storage.join(to, file), storage.read_bytes(storage.join(uri, file)))
    return str(document["id"])


def new_encoder(model: EncoderNetwork | SentenceEncoder, tokens: TokenIndex | None = None) -> Network:
    """Return a bare encoder, for a text with its tokenizer, with the id that its artifact will have."""
    names = {} if tokens is None else {"tokens_sha256": hashlib.sha256(tokens.data).hexdigest()}
    return Network(id=_document(model, names)[0]["id"], model=model, tokens=tokens)


def save_encoder(uri: str, network: Network) -> str:
    """Write a bare encoder's artifact and return its content id.

    Raises:
        ValueError: if inference has changed the network since it was loaded: its vectors would be told from those of
            the encoder that it is a copy of.
    """
    names = save_index(uri, network.tokens) if network.tokens else {}
    model_id = _save(uri, network.model, names, {})
    if model_id != network.id:
        raise ValueError(f"{uri}: the encoder has become {model_id}; it was loaded as {network.id}")
    return model_id


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
    return _set(uri, {"temperature": temperature}, metrics, fitted)


def set_thresholds(uri: str, thresholds: Sequence[float], metrics: dict[str, Any], fitted: Fitted | None = None) -> str:
    """Store the thresholds of a model of labels and what was measured with them; return its content id, which changes.

    Args:
        uri: Its folder.
        thresholds: The least probability of each label that is applied, in the order of its labels.
        metrics: What was measured.
        fitted: All that the model is fitted on now; None: as it is.
    """
    return _set(uri, {"thresholds": list(thresholds)}, metrics, fitted)


def _set(uri: str, entry: dict[str, Any], metrics: dict[str, Any], fitted: Fitted | None) -> str:
    before = read_json(uri, "model.json")
    document = before | entry | save_fitted(uri, fitted)
    document["id"] = content_id(document)
    write_json(uri, "metrics.json", read_json(uri, "metrics.json") | {"calibration": metrics})
    write_json(uri, "model.json", document)
    if (old := file_of(before)) and old != file_of(document):
        storage.delete_file(storage.join(uri, old))
    return str(document["id"])


def add_compiled(uri: str, member: str, engine: str, files: Files, about: dict[str, Any]) -> str:
    """Add the encoder of an artifact, compiled for an engine, to its folder; return its content id, which changes.

    Args:
        uri: Its folder.
        member: Of a model over others the modality of the one that has the encoder; else "".
        engine: The engine's name.
        files: The files by their endings.
        about: What was measured, for `model.json`.
    """
    document = read_json(uri, "model.json")
    if member:
        part = add_compiled(storage.join(uri, member), "", engine, files, about)
        document["members"] = document["members"] | {member: part}
    else:
        document[ENTRY] = document.get(ENTRY, {}) | save_compiled(uri, engine, files, about)
    document["id"] = content_id(document)
    write_json(uri, "model.json", document)
    return str(document["id"])


def _save(uri: str, model: Saved, names: dict[str, Any], metrics: dict[str, Any]) -> str:
    check_finite(model.state_dict(), uri)
    document, weights = _document(model, names)
    document["written_by"] = f"atlas_ray {__version__}"
    storage.write_bytes(storage.join(uri, "weights.safetensors"), weights)
    write_json(uri, "metrics.json", metrics)
    write_json(uri, "model.json", document)
    return str(document["id"])


def _document(model: Saved, names: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the `model.json` and the weights of a network."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights = safetensors.torch.save(state)
    document: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind_of(model),
        "config": model.config.to_dict(),
        **names,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    document["id"] = content_id(document)
    return document, weights
