"""Networks, each with what is needed to use it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atlas_ray.artifacts.compiled import Compiled
from atlas_ray.artifacts.kinds import KINDS, kind_of
from atlas_ray.formats.fitted import Fitted
from atlas_ray.modalities import PICTURE, texts_of
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.modalities.tokens import TokenIndex
from atlas_ray.models.zoom import ZoomNetwork
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that turns products into vectors, with what is needed to do so."""

    id: str
    """The content id: of weights and configuration, and of all else that its answers depend on."""
    model: Any
    """A network of its `kind`."""
    metrics: dict[str, Any] = field(default_factory=dict)
    words: WordIndex | None = None
    """Of a model of texts."""
    tokens: TokenIndex | None = None
    """Of a sentence encoder, or a model of texts over one."""
    members: "Mapping[str, Network]" = field(default_factory=dict)
    """Of a fused model the models that it fuses, of a head those whose vectors it reads, by modality."""
    compiled: Compiled = field(default_factory=dict)
    """Of a model of pictures: its encoder, compiled for engines; of a zoom filter all of it."""

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that its picture encoder is compiled for; of a fused model, or a head, that of its member."""
        return tuple(self.members.get(PICTURE, self).compiled)

    @property
    def kind(self) -> str:
        """What it holds, one of `VECTOR_KINDS`."""
        return kind_of(self.model)

    @property
    def encoder_id(self) -> str:
        """The id of what makes its vectors: of a head the one that it was trained on, or its own."""
        return str(getattr(self.model.config, "encoder_id", self.id))

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it looks at of a product: picture, title, description."""
        return KINDS[self.kind].modalities(self.model.config)

    @property
    def texts(self) -> tuple[str, ...]:
        """What it reads beside pictures: title, description."""
        return texts_of(self.modalities)

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """How wide its features of each modality are, in the order of `modalities`."""
        return KINDS[self.kind].feature_widths(self.model, self.members)

    @property
    def image_size_px(self) -> int:
        """Side of the square that pictures become; 0 if it looks at none."""
        return KINDS[self.kind].image_size_px(self.model.config, self.members)


@dataclass(frozen=True, kw_only=True)
class Artifact(Network):
    """A trained model that puts products into a taxonomy, with all that is needed to use it."""

    vocabulary: Vocabulary
    taxonomy: Taxonomy
    labels: LabelSpace | None = None
    """Of a model of labels: what it names; None of one of category paths."""
    fitted: Fitted | None = None
    """The products that it was fitted on; None if that is not known: an imported model, or an older one."""
    temperature: float = 1.0
    """What its log-probabilities are divided by, so that its probabilities can be trusted; 1 until calibrated."""
    thresholds: tuple[float, ...] = ()
    """Of a model of labels: the least probability of each label that is applied."""

    @property
    def target(self) -> str:
        """What it answers, one of `TARGETS`."""
        return "path" if self.labels is None else "labels"

    @property
    def spells(self) -> bool:
        """Whether it spells paths token by token; one that does not knows the leaves of its taxonomy alone."""
        return KINDS[self.kind].spells

    @property
    def takes_vectors(self) -> bool:
        """Whether it can answer from vectors alone, without pictures and texts."""
        return KINDS[self.kind].takes_vectors

    @property
    def fused(self) -> "dict[str, Artifact]":
        """Of a fused model: the models that it fuses, by modality."""
        return {name: member for name, member in self.members.items() if isinstance(member, Artifact)}


@dataclass(frozen=True, kw_only=True)
class ZoomArtifact(Network):
    """A trained zoom filter, which gives a probability and no vectors; its threshold is in the model's configuration.

    Engines run all of its network.
    """

    model: ZoomNetwork
