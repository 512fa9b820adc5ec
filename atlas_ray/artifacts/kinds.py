"""The kinds of models: one object each, with all that an artifact has to know of it.

How a kind answers is in `atlas_ray.prediction.networks.INFERENCES`, how it is trained in
`atlas_ray.training.settings.TRAININGS`, by the same names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atlas_ray.modalities.products import PICTURE
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.models.text import TextConfig, TextNetwork
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork

Members = Mapping[str, Any]
"""The artifacts that a fused model fuses, by modality; {} of another one."""


@dataclass(frozen=True)
class Kind:
    """A kind of model. As it stands, one of pictures; other kinds say in what they differ."""

    config: type[Any]
    """The class of its configuration, which tells kinds apart."""
    network: Callable[[Any], Any]
    """Builds its network from a configuration."""
    spells: bool = False
    """Whether it spells paths token by token. One that does not has a class for each leaf, or for each label."""
    has_words: bool = False
    """Whether it reads texts, so that its artifact has the words that it knows."""
    has_members: bool = False
    """Whether it fuses other models, which its artifact has copies of."""
    modalities: Callable[[Any], tuple[str, ...]] = lambda config: (PICTURE,)  # noqa: ARG005
    """Of a configuration: what it looks at of a product: picture, title, description."""
    feature_widths: Callable[[Any, Members], tuple[int, ...]] = lambda model, members: (model.encoder.features,)  # noqa: ARG005
    """Of a network and its members: how wide its features of each modality are, in the order of `reads`."""
    image_size_px: Callable[[Any, Members], int] = lambda config, members: config.image_size_px  # noqa: ARG005
    """Of a configuration and members: the side of the square that pictures become; 0 if it looks at none."""


ZOOM_KIND = "zoom"
KINDS: dict[str, Kind] = {
    "classifier": Kind(ClassifierConfig, Classifier),
    "encoder-decoder": Kind(EncoderDecoderConfig, EncoderDecoder, spells=True),
    "text": Kind(
        TextConfig,
        TextNetwork,
        has_words=True,
        modalities=lambda config: (config.field,),
        feature_widths=lambda model, _: (model.config.hidden_dim,),
        image_size_px=lambda *_: 0,
    ),
    "fusion": Kind(
        FusionConfig,
        build_fusion,
        has_members=True,
        modalities=lambda config: config.names,
        feature_widths=lambda model, members: tuple(members[name].feature_widths[0] for name in model.config.names),
        image_size_px=lambda _, members: members[PICTURE].image_size_px if PICTURE in members else 0,
    ),
    ZOOM_KIND: Kind(ZoomConfig, ZoomNetwork),
}
"""What an artifact can hold. A model of a picture's labels is a classifier, whose artifact names the labels."""
PATH_KINDS = tuple(name for name in KINDS if name != ZOOM_KIND)
"""The kinds that put products into a taxonomy."""
MEMBER_KINDS = tuple(name for name in PATH_KINDS if not KINDS[name].has_members)
"""What a fused model may be made of."""


def kind_of(model: Any) -> str:
    """Return the name of a network's kind."""
    return next(name for name, kind in KINDS.items() if type(model.config) is kind.config)
