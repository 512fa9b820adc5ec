"""The kinds of models, each with all that an artifact has to know of it.

The inference of a kind is in `atlas_ray.prediction.networks.INFERENCES`, its training in
`atlas_ray.training.settings.TRAININGS`, by the same names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atlas_ray.modalities import PICTURE
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder import EncoderConfig, EncoderNetwork
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.models.head import Head, HeadConfig
from atlas_ray.models.sentence_classifier import SentenceClassifier, SentenceClassifierConfig
from atlas_ray.models.sentences import SentenceConfig, SentenceEncoder
from atlas_ray.models.text import TextConfig, TextNetwork
from atlas_ray.models.text_encoder_decoder import (
    SentenceDecoderConfig,
    SentenceEncoderDecoder,
    TextDecoderConfig,
    TextEncoderDecoder,
)
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork

Members = Mapping[str, Any]
"""The artifacts that a model is made over, by modality; {} for one that is not."""


@dataclass(frozen=True)
class Kind:
    """A kind of network. The defaults are those of a model of pictures."""

    config: type[Any]
    """The class of its configuration, by which kinds are recognized."""
    network: Callable[[Any], Any]
    """A function that builds its network from a configuration."""
    answers: bool = True
    """Whether it puts products into a taxonomy. Otherwise it only turns them into vectors."""
    spells: bool = False
    """Whether it spells paths token by token. Otherwise it has a class for each leaf or label."""
    has_words: bool = False
    """Whether it reads texts, so that its artifact has a vocabulary."""
    has_tokens: bool = False
    """Whether it reads texts by a tokenizer, of which its artifact has a copy."""
    has_members: bool = False
    """Whether it is made over other models, so that its artifact has copies of them."""
    fuses: bool = False
    """Whether these answer in its taxonomy, and it makes one decision of theirs. Otherwise it reads their vectors."""
    takes_vectors: bool = False
    """Whether it can answer from vectors alone, without pictures and texts."""
    modalities: Callable[[Any], tuple[str, ...]] = lambda config: (PICTURE,)  # noqa: ARG005
    """A function of a configuration that returns the modalities that it reads: picture, title, description."""
    feature_widths: Callable[[Any, Members], tuple[int, ...]] = lambda model, members: (model.encoder.features,)  # noqa: ARG005
    """A function of a network and its members that returns the width of the features of each of its modalities."""
    image_size_px: Callable[[Any, Members], int] = lambda config, members: config.image_size_px  # noqa: ARG005
    """A function of a configuration and members that returns the side of the pictures; 0 if it reads none."""


def _of_texts(config: type[Any], network: Callable[[Any], Any], **more: Any) -> Kind:
    """Describe a kind that reads titles or descriptions."""
    return Kind(config, network, modalities=lambda config: (config.field,), image_size_px=lambda *_: 0, **more)


def _hidden_width(model: Any, _: Members) -> tuple[int, ...]:
    return (model.config.hidden_dim,)


def _encoder_width(model: Any, _: Members) -> tuple[int, ...]:
    return (model.config.encoder_dim,)


def _picture_size(_: Any, members: Members) -> int:
    return members[PICTURE].image_size_px if PICTURE in members else 0


ZOOM_KIND = "zoom"
KINDS: dict[str, Kind] = {
    "classifier": Kind(ClassifierConfig, Classifier),
    "encoder-decoder": Kind(EncoderDecoderConfig, EncoderDecoder, spells=True),
    "text": _of_texts(TextConfig, TextNetwork, has_words=True, feature_widths=_hidden_width),
    "sentence": _of_texts(SentenceClassifierConfig, SentenceClassifier, has_tokens=True, feature_widths=_hidden_width),
    "text-encoder-decoder": _of_texts(
        TextDecoderConfig, TextEncoderDecoder, spells=True, has_words=True, feature_widths=_encoder_width
    ),
    "sentence-encoder-decoder": _of_texts(
        SentenceDecoderConfig, SentenceEncoderDecoder, spells=True, has_tokens=True, feature_widths=_encoder_width
    ),
    "fusion": Kind(
        FusionConfig,
        build_fusion,
        has_members=True,
        fuses=True,
        modalities=lambda config: config.names,
        feature_widths=lambda model, members: tuple(members[name].feature_widths[0] for name in model.config.names),
        image_size_px=_picture_size,
    ),
    "head": Kind(
        HeadConfig,
        Head,
        has_members=True,
        takes_vectors=True,
        modalities=lambda config: config.names,
        feature_widths=lambda model, _: model.config.widths,
        image_size_px=_picture_size,
    ),
    "encoder": Kind(EncoderConfig, EncoderNetwork, answers=False),
    "sentence-encoder": _of_texts(
        SentenceConfig,
        SentenceEncoder,
        answers=False,
        has_tokens=True,
        feature_widths=lambda model, _: (model.width,),
    ),
    ZOOM_KIND: Kind(ZoomConfig, ZoomNetwork, answers=False),
}
"""The kinds by name. A model of a picture's labels is a classifier, whose artifact names the labels."""
VECTOR_KINDS = tuple(name for name in KINDS if name != ZOOM_KIND)
"""The kinds that turn products into vectors."""
PATH_KINDS = tuple(name for name in VECTOR_KINDS if KINDS[name].answers)
"""The kinds that put products into a taxonomy."""
MEMBER_KINDS = tuple(name for name in PATH_KINDS if not KINDS[name].fuses)
"""The kinds that a model may fuse, each of one modality."""
ENCODER_KINDS = tuple(name for name in VECTOR_KINDS if not KINDS[name].has_members)
"""The kinds whose vectors a head may read, each of one modality."""


def kind_of(model: Any) -> str:
    """Return the name of a network's kind."""
    return _kind_of(model.config)


def new_network(config: Any) -> Any:
    """Build the network of a configuration of any kind, with random weights."""
    return KINDS[_kind_of(config)].network(config)


def _kind_of(config: Any) -> str:
    return next(name for name, kind in KINDS.items() if type(config) is kind.config)
