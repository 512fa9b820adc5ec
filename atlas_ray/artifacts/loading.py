"""Artifacts read and checked; no pickle is ever loaded from one."""

import hashlib
from collections.abc import Sequence
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from atlas_ray.artifacts.artifact import Artifact, Network, ZoomArtifact
from atlas_ray.artifacts.compiled import find_compiled
from atlas_ray.artifacts.files import (
    DEFAULT_THRESHOLD,
    FORMAT,
    content_id,
    load_tokens,
    load_words,
    read,
    read_json,
)
from atlas_ray.artifacts.fitted import load_fitted
from atlas_ray.artifacts.kinds import ENCODER_KINDS, KINDS, MEMBER_KINDS, PATH_KINDS, VECTOR_KINDS, ZOOM_KIND
from atlas_ray.errors import ArtifactError, ConfigError, TaxonomyError
from atlas_ray.io import storage
from atlas_ray.metrics.calibration import BOUNDS
from atlas_ray.models.weights import check_finite
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary, format_path


def check_target(uri: str, target: str) -> None:
    """Refuse an artifact that answers something else, from its `model.json` alone.

    Args:
        uri: Its folder.
        target: One of `TARGETS`.

    Raises:
        ArtifactError: as `load_artifact`.
    """
    _check_target(uri, _open(uri, PATH_KINDS)[0], target)


def load_network(uri: str, kinds: Sequence[str] = VECTOR_KINDS) -> Network:
    """Read an artifact, whatever it answers, on the CPU; by default one that turns products into vectors.

    Args:
        uri: Its folder.
        kinds: What it may hold.

    Raises:
        ArtifactError: as `load_artifact`.
    """
    document, config = _open(uri, kinds)
    if document["kind"] in PATH_KINDS:
        return load_artifact(uri, kinds=(document["kind"],), target=None)
    if document["kind"] == ZOOM_KIND:
        return load_zoom_artifact(uri)
    tokens = None
    if KINDS[document["kind"]].has_tokens:
        tokens = load_tokens(uri, config, document.get("tokens_sha256", ""))
    return Network(
        id=document["id"],
        model=_network(uri, document, config),
        metrics=read_json(uri, "metrics.json"),
        tokens=tokens,
        compiled=find_compiled(uri, document),
    )


def load_artifact(uri: str, kinds: Sequence[str] = PATH_KINDS, target: str | None = "path") -> Artifact:
    """Read an artifact, on the CPU.

    Args:
        uri: Its folder.
        kinds: What it may hold.
        target: What it has to answer, one of `TARGETS`; None where either will do.

    Raises:
        ArtifactError: if the folder holds no artifact, one of another kind, target or format, or a
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
    taxonomy = Taxonomy.from_json(read(uri, "taxonomy.json"), source=storage.join(uri, "taxonomy.json"))
    if taxonomy.id != taxonomy_id:
        raise ArtifactError(f"{uri}: taxonomy.json is {taxonomy.id}, the model was trained on {taxonomy_id}")
    words, tokens, members = None, None, dict[str, Network]()
    labels = _labels(uri, document, taxonomy)
    outputs = len(labels or taxonomy.leaves)
    checks: dict[str, Any] = {"vocabulary_size": len(vocabulary), "classes": outputs, "outputs": outputs}
    kind = KINDS[document["kind"]]
    if labels and kind.spells:
        raise ArtifactError(f"{uri}: model.json is damaged: an encoder-decoder names no labels")
    if kind.has_words:
        words = load_words(uri, config.field, document.get("words_sha256", ""))
        checks["words"] = len(words)
    if kind.has_tokens:
        tokens = load_tokens(uri, config, document.get("tokens_sha256", ""))
    if kind.has_members:
        members = _members(uri, config, document, MEMBER_KINDS if kind.fuses else ENCODER_KINDS)
        if kind.fuses:
            checks["target"] = _target(document)
        else:
            checks["features"] = "+".join(str(member.feature_widths[0]) for member in members.values())
    for name, there in checks.items():
        if (stated := getattr(config, name, there)) != there:
            raise ArtifactError(f"{uri}: {name} is {stated}, but there are {there}")
    artifact = Artifact(
        id=document["id"],
        model=model,
        vocabulary=vocabulary,
        taxonomy=taxonomy,
        metrics=read_json(uri, "metrics.json"),
        words=words,
        tokens=tokens,
        members=members,
        compiled=find_compiled(uri, document),
        labels=labels,
        fitted=load_fitted(uri, document),
        temperature=_temperature(uri, document),
        thresholds=_thresholds(uri, document, labels),
    )
    if kind.fuses:
        for name, member in artifact.fused.items():
            check_member(name, member, taxonomy, labels, storage.join(uri, name))
    return artifact


def _target(document: dict[str, Any]) -> str:
    return "labels" if "labels" in document else "path"


def _check_target(uri: str, document: dict[str, Any], target: str) -> None:
    if _target(document) == target:
        return
    if target == "path":
        raise ArtifactError(f"{uri}: a model of labels, not of category paths; name one that answers with paths")
    raise ArtifactError(
        f"{uri}: a model of category paths, not of labels; `train image-labels` and `train text --target labels` make "
        "one of labels"
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


def _thresholds(uri: str, document: dict[str, Any], labels: LabelSpace | None) -> tuple[float, ...]:
    found = document.get("thresholds", [DEFAULT_THRESHOLD] * len(labels or ()))
    if (
        not isinstance(found, list)
        or len(found) != len(labels or ())
        or not all(isinstance(value, int | float) and 0 < value <= 1 for value in found)
    ):
        raise ArtifactError(f"{uri}: model.json is damaged: its thresholds are {str(found)[:80]}")
    return tuple(map(float, found))


def _members(uri: str, config: Any, document: dict[str, Any], kinds: Sequence[str]) -> dict[str, Network]:
    """Read the artifacts that a model is made over, and hold them against what it was fitted on."""
    stated = document.get("members")
    if not isinstance(stated, dict) or set(stated) != set(config.names):
        raise ArtifactError(f"{uri}: model.json is damaged: its members are not {config.modalities}")
    members = dict[str, Network]()
    for name in config.names:
        member = members[name] = load_network(storage.join(uri, name), kinds)
        if member.id != stated[name]:
            raise ArtifactError(f"{uri}: {name}/ holds model {member.id}, and {stated[name]} was learned from")
        if member.modalities != (name,):
            raise ArtifactError(f"{uri}: {name}/ holds a model of the {member.modalities[0]}")
    return members


def check_member(name: str, member: Artifact, taxonomy: Taxonomy, labels: LabelSpace | None, source: str) -> None:
    """Refuse to fuse what cannot be fused.

    Raises:
        ArtifactError: if a model is of another modality or taxonomy, answers something else, or is
            itself a fused one.
    """
    if member.kind not in MEMBER_KINDS:
        raise ArtifactError(f"{source}: a model over other models cannot be fused again")
    if member.modalities != (name,):
        raise ArtifactError(f"{source}: a model of the {member.modalities[0]}; expected one of the {name}")
    if member.taxonomy.leaves != taxonomy.leaves:
        own, others = set(member.taxonomy.leaves), set(taxonomy.leaves)
        sides = (("it", sorted(own - others)), ("the others", sorted(others - own)))
        alone = "; ".join(
            f"{who} alone: {len(some)} leaves, such as {format_path(some[0])!r}" for who, some in sides if some
        )
        raise ArtifactError(
            f"{source}: trained on taxonomy {member.taxonomy.id}, the others on {taxonomy.id} "
            f"({alone or 'the same leaves in another order'}); train all of them with the same --taxonomy"
        )
    check_labels(member, labels, source)


def check_labels(artifact: Artifact, labels: LabelSpace | None, source: str) -> None:
    """Refuse a model that does not answer what the others do.

    Raises:
        ArtifactError: if it names labels and they do not, or the other way round, or other labels.
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
        id=document["id"],
        model=_network(uri, document, config),
        metrics=read_json(uri, "metrics.json"),
        compiled=find_compiled(uri, document),
    )


def _open(uri: str, kinds: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """Read model.json and the configuration in it."""
    document = read_json(uri, "model.json")
    if document.get("format") != FORMAT or document.get("kind") not in kinds:
        raise ArtifactError(
            f"{uri}: model.json says format {document.get('format')!r}, kind {document.get('kind')!r}; "
            f"expected format {FORMAT}, kind {' or '.join(kinds)}"
        )
    try:
        return document, KINDS[document["kind"]].config(**document["config"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{uri}: model.json is damaged: {error}") from None


def _network(uri: str, document: dict[str, Any], config: Any) -> Any:
    """Build the network of a model.json and fill it, after checking that both are what was saved."""
    if content_id(document) != document.get("id"):
        raise ArtifactError(f"{uri}: model.json was changed: its content does not give its id {document.get('id')}")
    weights = read(uri, "weights.safetensors")
    if hashlib.sha256(weights).hexdigest() != document.get("weights_sha256"):
        raise ArtifactError(f"{uri}: weights.safetensors is damaged: its sha256 is not the one in model.json")
    try:
        model = KINDS[document["kind"]].network(config)
        state = safetensors.torch.load(weights)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, ConfigError) as error:
        raise ArtifactError(f"{uri}: the weights do not fit the model: {str(error).splitlines()[-1]}") from None
    check_finite(state, uri)
    return model.eval()
