"""A model without labels: a head whose weights are the vectors of the category paths' names.

A sentence encoder that others trained gives a title and the names of the path that it belongs to similar vectors. The
logit of a path is the cosine similarity of both, times a scale.

Dimensions: leaves; texts (of all leaves); width (of a vector).
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from atlas_ray.arrays import Array
from atlas_ray.artifacts import Artifact, Network, read_sentence_encoder, save_joint_artifact
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.formats.fitted import TRAINED, Fitted, product_keys
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.modalities.texts import FIELDS
from atlas_ray.models.backbones import PACKAGE
from atlas_ray.models.head import Head, HeadConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.settings import Settings, pin_settings, read_settings, setting
from atlas_ray.taxonomy import CategoryPath, Taxonomy, format_path, read_taxonomy
from atlas_ray.training.run import SETTINGS, TrainReport, finished, forget

TEMPLATES = ("{path}", "{top} {leaf}", "{leaf} for {top}")
"""The texts of a path, unless a file names others."""
PARTS: Mapping[str, Any] = {
    "path": " ".join,
    "leaf": lambda path: path[-1],
    "parent": lambda path: path[-2] if len(path) > 1 else path[-1],
    "top": lambda path: path[0],
}
"""What a template may name: functions of a path's names."""
FIELD = re.compile(r"\{([^{}]*)\}")
SPREADS = 6.0
"""The scale is this number over the standard deviation of the similarities between the vectors of different leaves."""
MAX_TEXTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ZeroShotTraining(Settings):
    """What names a taxonomy's paths, and what reads the names."""

    model: ClassVar[str] = "zero-shot"
    encoder: str = setting(
        "folder of a sentence encoder, as Hugging Face's hub lays it out, or package:minilm, which comes with the "
        "extra minilm"
    )
    taxonomy: str = setting("taxonomy whose leaves are answered")
    output: str = setting("folder of the model")
    modality: str = setting("text of a product that is read", "title", choices=tuple(FIELDS))
    prefix: str | None = setting(
        "text that the encoder reads before each text, such as 'query: '; its folder's own if not given", None
    )
    templates: str | None = setting(
        "file of texts that name a path, one a line, with {path}, {top}, {parent} and {leaf}; by default "
        + ", ".join(TEMPLATES),
        None,
    )
    synonyms: str | None = setting(
        "YAML file of other names: the name of a category, or the path of one, then a text or a list of them", None
    )
    scale: float = setting(
        "number that the similarities are multiplied by; a larger one makes the answers surer; 0: chosen by how alike "
        "the paths' vectors are",
        0.0,
        low=0,
        high=10_000,
    )

    def absolute(self) -> "ZeroShotTraining":
        """Return these settings with absolute paths."""
        uris: dict[str, Any] = {"output": storage.absolute(self.output)}
        if not self.encoder.startswith(PACKAGE):
            uris["encoder"] = storage.absolute(self.encoder)
        if storage.exists(self.taxonomy):  # else a built-in one, by its name
            uris["taxonomy"] = storage.absolute(self.taxonomy)
        return replace(self, **uris)


@holding("train zero-shot", "config.output")
def train_zero_shot(config: ZeroShotTraining, *, fresh: bool = False) -> TrainReport:
    """Write a head that compares texts with the names of a taxonomy's paths; no label is read.

    Args:
        config: The settings.
        fresh: Delete an earlier run in the output first.

    Raises:
        ArtifactError: if the encoder cannot be used.
        ConfigError: for a template or a synonym that names nothing.
        OutputError: if the output holds something else.
        TaxonomyError: if there is no such taxonomy.
    """
    config = config.absolute()
    taxonomy = read_taxonomy(config.taxonomy)
    texts = path_texts(taxonomy, read_templates(config.templates), read_synonyms(config.synonyms, taxonomy))
    encoder = read_sentence_encoder(config.encoder, config.modality, prefix=config.prefix)
    settings = config.to_dict() | {"model": config.model, "taxonomy_id": taxonomy.id, "encoder_id": encoder.id}
    settings["texts"] = [len(texts), hash_of(texts)]
    if fresh:
        forget(config.output)
    if done := finished(config.output, settings):
        return done
    pin_settings(config.output, SETTINGS, settings)
    vectors = mean_vectors(encoder, texts)
    scale = config.scale or scale_of(vectors)
    shape = HeadConfig(
        modalities=config.modality,
        features=str(vectors.shape[1]),
        encoder_id=encoder.id,
        outputs=len(taxonomy.leaves),
        prior=True,
    )
    head = Head(shape)
    head.prior.copy_(scale * torch.from_numpy(vectors))
    metrics = {"settings": settings, "scale": scale, "texts": sum(map(len, texts)), "leaves": len(taxonomy.leaves)}
    model_id = save_joint_artifact(
        config.output, head, {config.modality: encoder}, taxonomy=taxonomy, metrics=metrics,
        fitted=Fitted.of(product_keys(()), TRAINED),
    )  # fmt: skip
    return TrainReport(model_id, config.output, metrics)


def read_templates(uri: str | None) -> tuple[str, ...]:
    """Read a file of templates, one a line; the usual ones for None.

    Raises:
        ConfigError: naming a line that names no part of a path, or another part than those there are.
    """
    if uri is None:
        return TEMPLATES
    lines = _lines(uri)
    for number, line in lines:
        names = FIELD.findall(line)
        rest = FIELD.sub("", line)
        if not names or not set(names) <= PARTS.keys() or "{" in rest or "}" in rest:
            known = ", ".join(f"{{{name}}}" for name in PARTS)
            raise ConfigError(f"{uri}, line {number}: {line[:80]!r}; expected a text with one or more of {known}")
    if not lines:
        raise ConfigError(f"{uri}: no template in it")
    return tuple(line for _, line in lines)


def _lines(uri: str) -> list[tuple[int, str]]:
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri}: not UTF-8: {error}") from None
    numbered = enumerate(map(str.strip, text.splitlines()), 1)
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def read_synonyms(uri: str | None, taxonomy: Taxonomy) -> dict[CategoryPath, list[str]]:
    """Read a file of synonyms; {} for None.

    Returns:
        The other names of each node that has some.

    Raises:
        ConfigError: naming an entry that is no name or path of the taxonomy, or whose value is no text.
    """
    if uri is None:
        return {}
    by_name: dict[str, list[CategoryPath]] = {}
    for node in taxonomy.nodes:
        by_name.setdefault(node[-1], []).append(node)
        by_name.setdefault(format_path(node), []).append(node)
    found: dict[CategoryPath, list[str]] = {}
    for key, value in read_settings(uri).items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise ConfigError(f"{uri}: {str(key)[:80]!r} has {str(value)[:80]!r}; expected a text, or a list of texts")
        nodes = by_name.get(" ".join(str(key).split()))
        if nodes is None:
            raise ConfigError(
                f"{uri}: {str(key)[:80]!r} is neither a name nor a path of the taxonomy {taxonomy.name!r}"
            )
        for node in nodes:
            found.setdefault(node, []).extend(names)
    return found


def path_texts(
    taxonomy: Taxonomy, templates: Sequence[str], synonyms: Mapping[CategoryPath, Sequence[str]]
) -> list[tuple[str, ...]]:
    """Return the texts of each leaf: each template of its names, and of its names with one of them by a synonym.

    Raises:
        ConfigError: if there are more than `MAX_TEXTS`.
    """
    texts = []
    for leaf in taxonomy.leaves:
        named = [leaf]
        for level in range(len(leaf)):
            others = synonyms.get(leaf[: level + 1], ())
            named += [(*leaf[:level], other, *leaf[level + 1 :]) for other in others]
        texts.append(tuple(dict.fromkeys(_filled(template, names) for names in named for template in templates)))
    if (count := sum(map(len, texts))) > MAX_TEXTS:
        raise ConfigError(f"{count} texts name the {len(texts)} leaves; expected at most {MAX_TEXTS}: fewer templates")
    return texts


def _filled(template: str, names: CategoryPath) -> str:
    return FIELD.sub(lambda match: PARTS[match[1]](names), template)


def mean_vectors(encoder: Network, texts: Sequence[Iterable[str]]) -> Array:
    """Return the mean of the vectors of each leaf's texts, brought to length 1, (leaves, width) float32.

    Raises:
        ArtifactError: if a number of a vector is NaN or infinite.
    """
    field = encoder.modalities[0]
    distinct = list(dict.fromkeys(text for leaf in texts for text in leaf))
    asked = replace(encoder, model=copy.deepcopy(encoder.model))  # inference changes a network, and this one is saved
    vectors, refused = Embedder(asked).embed([None] * len(distinct), {field: distinct})
    if refused:
        raise ArtifactError(f"the encoder makes no vector of {distinct[next(iter(refused))]!r}: a number is not finite")
    number = {text: place for place, text in enumerate(distinct)}
    means = np.stack([vectors[[number[text] for text in leaf]].mean(0) for leaf in texts])
    unit: Array = means / np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-9)
    return unit.astype(np.float32)


def scale_of(vectors: Array) -> float:
    """Return the number to multiply similarities by, from how much they differ between the leaves' own vectors.

    Args:
        vectors: (leaves, width), of length 1.
    """
    count = len(vectors)
    if count < 2:
        return 1.0
    # The mean and the mean square of all pairs, without a matrix of them.
    total, gram = vectors.sum(0, dtype=np.float64), vectors.T.astype(np.float64) @ vectors
    pairs = count * (count - 1)
    mean = (total @ total - count) / pairs
    square = ((gram**2).sum() - count) / pairs
    return float(np.clip(SPREADS / max(square - mean**2, 1e-8) ** 0.5, 1.0, 10_000.0))


def hash_of(texts: Sequence[Sequence[str]]) -> int:
    """Return a number that tells whether texts are the same."""
    return int(product_keys(["\x1f".join(text for leaf in texts for text in leaf)])[0])


def prior_of(artifact: Artifact, uri: str, encoders: Mapping[str, Network], taxonomy: Taxonomy) -> torch.Tensor:
    """Return the prior weights of a model, for a head over vectors of the same encoder, (leaves, width).

    Args:
        artifact: The model of `train zero-shot`, or a head that was trained with its prior.
        uri: Its folder, for messages.
        encoders: The encoder of each modality of the new head.
        taxonomy: The taxonomy of the new head.

    Raises:
        ArtifactError: if the model has no prior, or one of another encoder or taxonomy.
    """
    if not getattr(artifact.model.config, "prior", False):
        raise ArtifactError(f"{uri}: a {artifact.kind} without a prior; `atlas-ray train zero-shot` makes one")
    if artifact.taxonomy.leaves != taxonomy.leaves:
        raise ArtifactError(
            f"{uri}: of taxonomy {artifact.taxonomy.id}, and the head is of {taxonomy.id}; run `atlas-ray train "
            "zero-shot` with that taxonomy"
        )
    parts = dict(
        zip(artifact.modalities, artifact.model.prior.split(list(artifact.model.config.widths), 1), strict=True)
    )
    for name, member in artifact.members.items():
        if name not in encoders or encoders[name].id != member.id:
            raise ArtifactError(
                f"{uri}: reads the {name} with encoder {member.id}, and the vectors are of "
                f"{' and '.join(one.id for one in encoders.values())}; make both with the same --encoder and --prefix"
            )
    zeros = [torch.zeros(len(taxonomy.leaves), sum(one.feature_widths)) for one in encoders.values()]
    return torch.cat([parts.get(name, zero) for name, zero in zip(encoders, zeros, strict=True)], 1)
