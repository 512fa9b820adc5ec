"""A trained model with what is needed to use it."""

from dataclasses import dataclass, field
from typing import Any

from atlas_ray.artifacts.kinds import KINDS, kind_of
from atlas_ray.formats.fitted import Fitted
from atlas_ray.modalities.products import texts_of
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.models.zoom import ZoomNetwork
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A trained model with all that is needed to use it."""

    id: str
    """The content id: of weights, configuration, vocabulary and taxonomy."""
    model: Any
    """A network of its `kind`."""
    vocabulary: Vocabulary
    taxonomy: Taxonomy
    metrics: dict[str, Any] = field(default_factory=dict)
    words: WordIndex | None = None
    """Of a model of texts."""
    members: "dict[str, Artifact]" = field(default_factory=dict)
    """Of a fused model: the models that it fuses, by modality."""
    labels: LabelSpace | None = None
    """Of a model of labels: what it names; None of one of category paths."""
    fitted: Fitted | None = None
    """The products that it was fitted on; None if that is not known: an imported model, or an older one."""
    temperature: float = 1.0
    """What its log-probabilities are divided by, so that its probabilities can be trusted; 1 until calibrated."""

    @property
    def kind(self) -> str:
        """What it holds, one of `PATH_KINDS`."""
        return kind_of(self.model)

    @property
    def spells(self) -> bool:
        """Whether it spells paths token by token; one that does not knows the leaves of its taxonomy alone."""
        return KINDS[self.kind].spells

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
        """How wide its features of each modality are, in the order of `reads`."""
        return KINDS[self.kind].feature_widths(self.model, self.members)

    @property
    def image_size_px(self) -> int:
        """Side of the square that pictures become; 0 if it looks at none."""
        return KINDS[self.kind].image_size_px(self.model.config, self.members)


@dataclass(frozen=True, kw_only=True)
class ZoomArtifact:
    """A trained zoom filter; its threshold is in the model's configuration."""

    id: str
    """The content id: of weights and configuration."""
    model: ZoomNetwork
    metrics: dict[str, Any]
