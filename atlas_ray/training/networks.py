"""The network that a training starts from."""

from collections.abc import Callable
from typing import Any, TypeVar

from atlas_ray.arrays import Integers
from atlas_ray.artifacts.kinds import KINDS
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.fusion.policy import FusionConfig
from atlas_ray.models.head import HeadConfig
from atlas_ray.models.path_model import PathModel
from atlas_ray.models.text import TextConfig, TextNetwork
from atlas_ray.models.weights import load_backbone_weights, load_word_vectors
from atlas_ray.settings import Settings
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary
from atlas_ray.training.settings import (
    ClassifierTraining,
    EncoderDecoderTraining,
    EncoderTraining,
    ImageLabelsTraining,
    TextTraining,
    TrainConfig,
)

Shape = TypeVar("Shape", bound=Settings)


def build_network(
    config: TrainConfig,
    taxonomy: Taxonomy,
    words: WordIndex | None = None,
    shape: FusionConfig | HeadConfig | None = None,
    space: LabelSpace | None = None,
) -> PathModel:
    """Build the network of these settings, with random weights.

    Args:
        config: The settings.
        taxonomy: The taxonomy, whose leaves are the classes and whose names are the tokens.
        words: The vocabulary of a model of texts.
        shape: The shape of a policy or a head.
        space: The labels of a model of labels.
    """
    if shape is not None:
        network: PathModel = KINDS[config.model].network(shape)
        return network
    outputs = len(space or taxonomy.leaves)
    return NETWORKS[config.model](config, outputs, taxonomy, words)


def load_weights(network: Any, config: TrainConfig, words: WordIndex | None = None) -> Integers | None:
    """Fill a new network with the weights that the settings name: a backbone's, or word vectors.

    Returns:
        The numbers of the words that got a vector; None if the settings name no word vectors.

    Raises:
        ArtifactError: if they cannot be read, or do not fit.
    """
    if pictures := config.of_pictures:
        load_backbone_weights(network.encoder, pictures.weights)
    elif words is not None and (vectors := getattr(config, "word_vectors", "none")) != "none":
        return load_word_vectors(network, words, vectors)
    return None


def _shape(kind: type[Shape], config: EncoderTraining, **others: Any) -> Shape:
    """Make a network's configuration of the settings that have the names of its fields, and of other values."""
    same = {name: getattr(config, name) for name in kind.__dataclass_fields__ if hasattr(config, name)}
    return kind(**same | others)


def _classifier(config: ClassifierTraining | ImageLabelsTraining, outputs: int, *_: Any) -> Classifier:
    return Classifier(_shape(ClassifierConfig, config, classes=outputs))


def _encoder_decoder(config: EncoderDecoderTraining, _: int, taxonomy: Taxonomy, __: Any) -> EncoderDecoder:
    widths = dict.fromkeys(("embedding_dim", "attention_dim", "decoder_dim"), config.hidden_dim)
    return EncoderDecoder(_shape(EncoderDecoderConfig, config, vocabulary_size=len(Vocabulary.of(taxonomy)), **widths))


def _text(config: TextTraining, outputs: int, _: Taxonomy, words: WordIndex) -> TextNetwork:
    return TextNetwork(_shape(TextConfig, config, words=len(words), outputs=outputs))


NETWORKS: dict[str, Callable[..., PathModel]] = {
    "classifier": _classifier,
    "image-labels": _classifier,
    "encoder-decoder": _encoder_decoder,
    "text": _text,
}
"""The function that builds the network of each kind of `atlas_ray.training.settings.TRAININGS`, unless its shape is
given."""
