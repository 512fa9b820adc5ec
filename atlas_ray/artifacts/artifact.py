"""A trained model with what is needed to use it, and the kinds that there are."""

from dataclasses import dataclass, field
from typing import Any

from atlas_ray.formats.fitted import Fitted
from atlas_ray.modalities.products import PICTURE, texts_of
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork, build_fusion
from atlas_ray.models.path_model import PathModel
from atlas_ray.models.text import TextConfig, TextNetwork
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary

MEMBER_KINDS = ("classifier", "encoder-decoder", "text")
"""What a fused model may be made of."""
PATH_KINDS = (*MEMBER_KINDS, "fusion")
ZOOM_KIND = "zoom"
KINDS: dict[str, tuple[Any, Any]] = {
    "classifier": (ClassifierConfig, Classifier),
    "encoder-decoder": (EncoderDecoderConfig, EncoderDecoder),
    "text": (TextConfig, TextNetwork),
    "fusion": (FusionConfig, build_fusion),
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
    fitted: Fitted | None = None
    """The products that it was fitted on; None where that is not known: an imported model, or an older one."""
    temperature: float = 1.0
    """What its log-probabilities are divided by, so that its probabilities can be trusted; 1 until calibrated."""

    @property
    def kind(self) -> str:
        """What it holds, one of `PATH_KINDS`."""
        return next(kind for kind in PATH_KINDS if isinstance(self.model.config, KINDS[kind][0]))

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
