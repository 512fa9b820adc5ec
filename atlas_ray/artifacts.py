"""Artifacts: a folder that holds one trained model.

    weights.safetensors   the network's tensors
    model.json            kind, configuration, vocabulary, content id; written last
    taxonomy.json         the taxonomy it was trained on
    metrics.json          what its training measured
    words.json            what a model of texts knows
    picture/ title/ description/    of a fused model: the artifacts that it fuses

A zoom filter has neither vocabulary nor taxonomy. A model of labels has their names in `model.json`.

No pickle is ever loaded from an artifact.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from atlas_ray import __version__, storage
from atlas_ray.errors import ArtifactError, ConfigError, StorageError, TaxonomyError
from atlas_ray.metrics.calibration import BOUNDS
from atlas_ray.models import (
    Classifier,
    ClassifierConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    FusionConfig,
    FusionNetwork,
    PathModel,
    TextConfig,
    TextNetwork,
)
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.products import PICTURE, texts_of
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary
from atlas_ray.texts import WordIndex

FORMAT = 1
MEMBER_KINDS = ("classifier", "encoder-decoder", "text")
"""What a fused model may be made of."""
PATH_KINDS = (*MEMBER_KINDS, "fusion")
ZOOM_KIND = "zoom"
WORDS = "words.json"
KINDS: dict[str, tuple[Any, Any]] = {
    "classifier": (ClassifierConfig, Classifier),
    "encoder-decoder": (EncoderDecoderConfig, EncoderDecoder),
    "text": (TextConfig, TextNetwork),
    "fusion": (FusionConfig, FusionNetwork),
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
    words: WordIndex | None = None
    """Of a model of texts."""
    members: "dict[str, Artifact]" = field(default_factory=dict)
    """Of a fused model: the models that it fuses, by modality."""
    labels: LabelSpace | None = None
    """Of a model of labels: what it names; None of one of category paths."""
    temperature: float = 1.0
    """What its log-probabilities are divided by, so that its probabilities can be trusted; 1 until calibrated."""

    @property
    def kind(self) -> str:
        """What it holds, one of `PATH_KINDS`."""
        return next(kind for kind in PATH_KINDS if isinstance(self.model, KINDS[kind][1]))

    @property
    def reads(self) -> tuple[str, ...]:
        """What it looks at of a product: picture, title, description."""
        if isinstance(self.model, FusionNetwork):
            return self.model.config.names
        return (self.model.config.field if isinstance(self.model, TextNetwork) else PICTURE,)

    @property
    def texts(self) -> tuple[str, ...]:
        """What it reads beside pictures: title, description."""
        return texts_of(self.reads)

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """How wide its features of each modality are, in the order of `reads`."""
        if isinstance(self.model, FusionNetwork):
            return tuple(self.members[name].feature_widths[0] for name in self.reads)
        return (self.model.config.hidden_dim if isinstance(self.model, TextNetwork) else self.model.encoder.features,)

    @property
    def image_size_px(self) -> int:
        """Side of the square that pictures become; 0 where it looks at none."""
        if isinstance(self.model, FusionNetwork):
            return self.members[PICTURE].image_size_px if PICTURE in self.members else 0
        return 0 if isinstance(self.model, TextNetwork) else self.model.config.image_size_px


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
    words: WordIndex | None = None,
    labels: LabelSpace | None = None,
) -> str:
    """Write an artifact and return its content id; `model.json` comes last and completes it."""
    storage.write_bytes(storage.join(uri, "taxonomy.json"), taxonomy.to_json().encode())
    names = {"vocabulary": list(vocabulary.tokens), "taxonomy_id": taxonomy.id, **_labels_entry(labels)}
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
) -> str:
    """Write a fused model with copies of the artifacts that it fuses, and return its content id.

    Args:
        uri: The folder.
        model: The policy.
        members: The URI of each modality's artifact.
        taxonomy: That of all of them.
        metrics: What was measured.
        labels: What all of them name, where they name labels.
    """
    storage.write_bytes(storage.join(uri, "taxonomy.json"), taxonomy.to_json().encode())
    for name, member in members.items():
        for file in ("weights.safetensors", "taxonomy.json", "metrics.json", WORDS, "model.json"):
            if storage.exists(storage.join(member, file)):
                storage.write_bytes(storage.join(uri, name, file), storage.read_bytes(storage.join(member, file)))
    ids = {name: _read_json(member, "model.json")["id"] for name, member in members.items()}
    vocabulary = list(Vocabulary.of(taxonomy).tokens)
    names = {"vocabulary": vocabulary, "taxonomy_id": taxonomy.id, "members": ids, **_labels_entry(labels)}
    return _save(uri, model, names, metrics)


def _labels_entry(labels: LabelSpace | None) -> dict[str, Any]:
    return {"labels": list(labels.names)} if labels else {}


def save_words(uri: str, words: WordIndex) -> str:
    """Write what a model of texts knows into its folder; return the file's SHA-256."""
    data = json.dumps(words.words, ensure_ascii=False).encode("utf-8", "surrogatepass")
    storage.write_bytes(storage.join(uri, WORDS), data)
    return hashlib.sha256(data).hexdigest()


def load_words(uri: str, field_name: str, sha256: str | None = None) -> WordIndex:
    """Read what `save_words` wrote.

    Raises:
        ArtifactError: where the file is missing, damaged, or not the one of that SHA-256.
    """
    data = _read(uri, WORDS)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ArtifactError(f"{uri}: {WORDS} is damaged: its sha256 is not the one in model.json")
    try:
        words = json.loads(data)
    except ValueError as error:
        raise ArtifactError(f"{uri}: {WORDS} is not JSON: {error}") from None
    if not isinstance(words, list):
        raise ArtifactError(f"{uri}: {WORDS} holds a {type(words).__name__}; expected a list")
    return WordIndex(words, field_name)


def save_zoom_artifact(uri: str, model: ZoomNetwork, *, metrics: dict[str, Any]) -> str:
    """Write a zoom filter's artifact and return its content id."""
    return _save(uri, model, {}, metrics)


def check_target(uri: str, target: str) -> None:
    """Refuse an artifact that answers something else, from its `model.json` alone.

    Args:
        uri: Its folder.
        target: One of `TARGETS`.

    Raises:
        ArtifactError: as `load_artifact`.
    """
    _check_target(uri, _open(uri, PATH_KINDS)[0], target)


def load_artifact(uri: str, kinds: Sequence[str] = PATH_KINDS, target: str | None = "path") -> Artifact:
    """Read an artifact, on the CPU.

    Args:
        uri: Its folder.
        kinds: What it may hold.
        target: What it has to answer, one of `TARGETS`; None where either will do.

    Raises:
        ArtifactError: where the folder holds no artifact, one of another kind, target or format, or a
            damaged one; with the reason.
    """
    document, config = _open(uri, kinds)
    if target is not None:
        _check_target(uri, document, target)
    try:
        vocabulary, taxonomy_id = Vocabulary(document["vocabulary"]), document["taxonomy_id"]
    except (KeyError, TypeError, TaxonomyError) as error:
        raise ArtifactError(f"{uri}: model.json is damaged: {error}") from None
    model = _network(uri, document, config)
    taxonomy = Taxonomy.from_json(_read(uri, "taxonomy.json"), source=storage.join(uri, "taxonomy.json"))
    if taxonomy.id != taxonomy_id:
        raise ArtifactError(f"{uri}: taxonomy.json is {taxonomy.id}, the model was trained on {taxonomy_id}")
    words, members, labels = None, {}, _labels(uri, document, taxonomy)
    outputs = len(labels or taxonomy.leaves)
    checks: dict[str, Any] = {"vocabulary_size": len(vocabulary), "classes": outputs, "outputs": outputs}
    if labels and isinstance(config, EncoderDecoderConfig):
        raise ArtifactError(f"{uri}: model.json is damaged: an encoder-decoder names no labels")
    if isinstance(config, TextConfig):
        words = load_words(uri, config.field, document.get("words_sha256", ""))
        checks["words"] = len(words)
    if isinstance(config, FusionConfig):
        members = _members(uri, config, document, taxonomy, labels)
        checks["target"] = _target(document)
    for name, there in checks.items():
        if (stated := getattr(config, name, there)) != there:
            raise ArtifactError(f"{uri}: {name} is {stated}, but there are {there}")
    return Artifact(
        id=document["id"],
        model=model,
        vocabulary=vocabulary,
        taxonomy=taxonomy,
        metrics=_read_json(uri, "metrics.json"),
        words=words,
        members=members,
        labels=labels,
        temperature=_temperature(uri, document),
    )


def _target(document: dict[str, Any]) -> str:
    return "labels" if "labels" in document else "path"


def _check_target(uri: str, document: dict[str, Any], target: str) -> None:
    if _target(document) == target:
        return
    if target == "path":
        raise ArtifactError(f"{uri}: a model of labels, not of category paths; `atlas-ray evaluate-labels` asks it")
    raise ArtifactError(
        f"{uri}: a model of category paths, not of labels; `atlas-ray score` asks it, and `train image-labels` "
        "and `train text --target labels` make one of labels"
    )


def _labels(uri: str, document: dict[str, Any], taxonomy: Taxonomy) -> LabelSpace | None:
    if "labels" not in document:
        return None
    names = document["labels"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ArtifactError(f"{uri}: model.json is damaged: its labels are no list of names")
    try:
        return LabelSpace(taxonomy, names)
    except TaxonomyError as error:
        raise ArtifactError(f"{uri}: model.json is damaged: {error}") from None


def _temperature(uri: str, document: dict[str, Any]) -> float:
    found = document.get("temperature", 1.0)
    if not isinstance(found, int | float) or not BOUNDS[0] <= found <= BOUNDS[1]:
        raise ArtifactError(f"{uri}: model.json is damaged: its temperature is {found!r}")
    return float(found)


def set_temperature(uri: str, temperature: float, metrics: dict[str, Any]) -> str:
    """Store the temperature of an artifact and what was measured with it; return its content id, which changes.

    Raises:
        ArtifactError: for a temperature that no model has.
    """
    if not BOUNDS[0] <= temperature <= BOUNDS[1]:
        raise ArtifactError(f"{uri}: temperature {temperature}; expected {BOUNDS[0]} to {BOUNDS[1]}")
    document = _read_json(uri, "model.json") | {"temperature": temperature}
    document["id"] = _content_id(document)
    _write_json(uri, "metrics.json", _read_json(uri, "metrics.json") | {"calibration": metrics})
    _write_json(uri, "model.json", document)
    return str(document["id"])


def _members(
    uri: str, config: FusionConfig, document: dict[str, Any], taxonomy: Taxonomy, labels: LabelSpace | None
) -> dict[str, Artifact]:
    """Read the artifacts that a fused model fuses, and hold them against what it was fitted on."""
    stated = document.get("members")
    if not isinstance(stated, dict) or set(stated) != set(config.names):
        raise ArtifactError(f"{uri}: model.json is damaged: its members are not {config.modalities}")
    members = {}
    for name in config.names:
        member = members[name] = load_artifact(storage.join(uri, name), MEMBER_KINDS, target=None)
        if member.id != stated[name]:
            raise ArtifactError(f"{uri}: {name}/ holds model {member.id}, the policy was fitted on {stated[name]}")
        check_member(name, member, taxonomy, labels, storage.join(uri, name))
    return members


def check_member(name: str, member: Artifact, taxonomy: Taxonomy, labels: LabelSpace | None, source: str) -> None:
    """Refuse to fuse what cannot be fused.

    Raises:
        ArtifactError: where a model is of another modality or taxonomy, answers something else, or is
            itself a fused one.
    """
    if isinstance(member.model, FusionNetwork):
        raise ArtifactError(f"{source}: a fused model cannot be fused again")
    if member.reads != (name,):
        raise ArtifactError(f"{source}: a model of the {member.reads[0]}; expected one of the {name}")
    if member.taxonomy.leaves != taxonomy.leaves:
        raise ArtifactError(
            f"{source}: trained on taxonomy {member.taxonomy.id}, the others on {taxonomy.id}; "
            "train all of them with the same --taxonomy"
        )
    check_labels(member, labels, source)


def check_labels(artifact: Artifact, labels: LabelSpace | None, source: str) -> None:
    """Refuse a model that does not answer what the others do.

    Raises:
        ArtifactError: where it names labels and they do not, or the other way round, or other labels.
    """
    if (artifact.labels is None) != (labels is None):
        one, others = ("category paths", "labels") if labels else ("labels", "category paths")
        raise ArtifactError(f"{source}: a model of {one}, the others are of {others}; they do not go together")
    if artifact.labels and labels and artifact.labels.names != labels.names:
        raise ArtifactError(
            f"{source}: names {len(artifact.labels)} labels that are not the {len(labels)} of the others; "
            "train all of them on the same catalogue with the same --min-products"
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
    _write_json(uri, "metrics.json", metrics)
    _write_json(uri, "model.json", document)
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


def _write_json(uri: str, name: str, document: dict[str, Any]) -> None:
    storage.write_bytes(storage.join(uri, name), json.dumps(document, indent=1, ensure_ascii=False).encode())


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
