"""Artifacts: a folder that holds one trained model.

    weights.safetensors   the network's tensors
    model.json            kind, configuration, vocabulary, content id; written last
    taxonomy.json         the taxonomy it was trained on
    metrics.json          what its training measured

A zoom filter has neither vocabulary nor taxonomy.

No pickle is ever loaded from an artifact.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from atlas_ray import __version__, storage
from atlas_ray.errors import ArtifactError, ConfigError, StorageError, TaxonomyError
from atlas_ray.models import Classifier, ClassifierConfig, EncoderDecoder, EncoderDecoderConfig, PathModel
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.taxonomy import Taxonomy, Vocabulary

FORMAT = 1
PATH_KINDS = ("classifier", "encoder-decoder")
ZOOM_KIND = "zoom"
KINDS: dict[str, tuple[Any, Any]] = {
    "classifier": (ClassifierConfig, Classifier),
    "encoder-decoder": (EncoderDecoderConfig, EncoderDecoder),
    ZOOM_KIND: (ZoomConfig, ZoomNetwork),
}
"""What an artifact can hold: the configuration and the network of each kind."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A trained model with all that is needed to use it."""

    id: str
    """The content id: of weights, configuration, vocabulary and taxonomy."""
    model: PathModel
    vocabulary: Vocabulary
    taxonomy: Taxonomy
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ZoomArtifact:
    """A trained zoom filter; its threshold is in the model's configuration."""

    id: str
    """The content id: of weights and configuration."""
    model: ZoomNetwork
    metrics: dict[str, Any]


def save_artifact(
    uri: str,
    model: PathModel,
    *,
    vocabulary: Vocabulary,
    taxonomy: Taxonomy,
    metrics: dict[str, Any],
) -> str:
    """Write an artifact and return its content id; `model.json` comes last and completes it."""
    storage.write_bytes(storage.join(uri, "taxonomy.json"), taxonomy.to_json().encode())
    names = {"vocabulary": list(vocabulary.tokens), "taxonomy_id": taxonomy.id}
    return _save(uri, model, names, metrics)


def save_zoom_artifact(uri: str, model: ZoomNetwork, *, metrics: dict[str, Any]) -> str:
    """Write a zoom filter's artifact and return its content id."""
    return _save(uri, model, {}, metrics)


def load_artifact(uri: str) -> Artifact:
    """Read an artifact, on the CPU.

    Raises:
        ArtifactError: where the folder holds no artifact, one of another kind or format, or a
            damaged one; with the reason.
    """
    document, config = _open(uri, PATH_KINDS)
    try:
        vocabulary, taxonomy_id = Vocabulary(document["vocabulary"]), document["taxonomy_id"]
    except (KeyError, TypeError, TaxonomyError) as error:
        raise ArtifactError(f"{uri}: model.json is damaged: {error}") from None
    model = _network(uri, document, config)
    taxonomy = Taxonomy.from_json(_read(uri, "taxonomy.json"), source=storage.join(uri, "taxonomy.json"))
    if taxonomy.id != taxonomy_id:
        raise ArtifactError(f"{uri}: taxonomy.json is {taxonomy.id}, the model was trained on {taxonomy_id}")
    name, stated, there = (
        ("classes", config.classes, len(taxonomy.leaves))
        if isinstance(config, ClassifierConfig)
        else ("vocabulary_size", config.vocabulary_size, len(vocabulary))
    )
    if stated != there:
        raise ArtifactError(f"{uri}: {name} is {stated}, but there are {there}")
    return Artifact(
        id=document["id"],
        model=model,
        vocabulary=vocabulary,
        taxonomy=taxonomy,
        metrics=_read_json(uri, "metrics.json"),
    )


def load_zoom_artifact(uri: str) -> ZoomArtifact:
    """Read a zoom filter's artifact, on the CPU.

    Raises:
        ArtifactError: as `load_artifact`.
    """
    document, config = _open(uri, (ZOOM_KIND,))
    return ZoomArtifact(
        id=document["id"], model=_network(uri, document, config), metrics=_read_json(uri, "metrics.json")
    )


def read_state_dict(uri: str) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, or from `.pth`/`.pt` without executing anything.

    Raises:
        ArtifactError: for a file of another kind, or one that holds more than tensors.
    """
    import io
    import pickle

    data = storage.read_bytes(uri)
    try:
        if uri.endswith(".safetensors"):
            return dict(safetensors.torch.load(data))
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ArtifactError(f"{uri}: not a state dict of tensors: {str(error).splitlines()[0]}") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ArtifactError(f"{uri}: holds something else than a dict of tensors")
    return loaded


def _save(uri: str, model: PathModel | ZoomNetwork, names: dict[str, Any], metrics: dict[str, Any]) -> str:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights = safetensors.torch.save(state)
    document: dict[str, Any] = {
        "format": FORMAT,
        "kind": next(kind for kind, (_, network) in KINDS.items() if isinstance(model, network)),
        "config": model.config.to_dict(),
        **names,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    document["id"] = _content_id(document)
    document["written_by"] = f"atlas_ray {__version__}"
    storage.write_bytes(storage.join(uri, "weights.safetensors"), weights)
    storage.write_bytes(storage.join(uri, "metrics.json"), json.dumps(metrics, indent=1).encode())
    text = json.dumps(document, indent=1, ensure_ascii=False)
    storage.write_bytes(storage.join(uri, "model.json"), text.encode())
    return str(document["id"])


def _open(uri: str, kinds: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """Read model.json and the configuration in it."""
    document = _read_json(uri, "model.json")
    if document.get("format") != FORMAT or document.get("kind") not in kinds:
        raise ArtifactError(
            f"{uri}: model.json says format {document.get('format')!r}, kind {document.get('kind')!r}; "
            f"expected format {FORMAT}, kind {' or '.join(kinds)}"
        )
    config_class, _ = KINDS[document["kind"]]
    try:
        return document, config_class(**document["config"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{uri}: model.json is damaged: {error}") from None


def _network(uri: str, document: dict[str, Any], config: Any) -> Any:
    """Build the network of a model.json and fill it, after checking that both are what was saved."""
    if _content_id(document) != document.get("id"):
        raise ArtifactError(f"{uri}: model.json was changed: its content does not give its id {document.get('id')}")
    weights = _read(uri, "weights.safetensors")
    if hashlib.sha256(weights).hexdigest() != document.get("weights_sha256"):
        raise ArtifactError(f"{uri}: weights.safetensors is damaged: its sha256 is not the one in model.json")
    _, network = KINDS[document["kind"]]
    try:
        model = network(config)
        model.load_state_dict(safetensors.torch.load(weights))
    except (SafetensorError, RuntimeError, ConfigError) as error:
        raise ArtifactError(f"{uri}: the weights do not fit the model: {str(error).splitlines()[-1]}") from None
    return model.eval()


def _content_id(document: dict[str, Any]) -> str:
    parts = {key: value for key, value in document.items() if key not in ("id", "written_by")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _read(uri: str, name: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(uri, name))
    except StorageError as error:
        raise ArtifactError(f"{uri}: not a complete model folder: {error}") from None


def _read_json(uri: str, name: str) -> dict[str, Any]:
    try:
        document = json.loads(_read(uri, name))
    except ValueError as error:
        raise ArtifactError(f"{uri}: {name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ArtifactError(f"{uri}: {name} holds a {type(document).__name__}; expected an object")
    return document
