"""The network that a training starts from."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from atlas_ray.arrays import Integers
from atlas_ray.artifacts import Network, read_sentence_encoder
from atlas_ray.artifacts.kinds import new_network
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.modalities.tokens import TextIndex
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.path_model import PathModel
from atlas_ray.models.sentence_classifier import SentenceClassifierConfig
from atlas_ray.models.text import TextConfig, TextNetwork
from atlas_ray.models.text_encoder_decoder import SentenceDecoderConfig, TextDecoderConfig, TextEncoderDecoder
from atlas_ray.models.weights import load_backbone_weights, load_word_vectors
from atlas_ray.settings import Settings
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary
from atlas_ray.training.settings import (
    ClassifierTraining,
    EncoderDecoderTraining,
    EncoderTraining,
    ImageLabelsTraining,
    TextEncoderDecoderTraining,
    TextTraining,
    TrainConfig,
)

Shape = TypeVar("Shape", bound=Settings)


def build_network(
    config: TrainConfig,
    taxonomy: Taxonomy,
    words: TextIndex | None = None,
    shape: Settings | None = None,
    space: LabelSpace | None = None,
) -> PathModel:
    """Build the network of these settings, with random weights.

    Args:
        config: The settings.
        taxonomy: The taxonomy, whose leaves are the classes and whose names are the tokens.
        words: The vocabulary of a model of texts.
        shape: The shape of a policy, a head, or a model over a sentence encoder.
        space: The labels of a model of labels.
    """
    if shape is not None:
        network: PathModel = new_network(shape)
        return network
    outputs = len(space or taxonomy.leaves)
    return NETWORKS[config.model](config, outputs, taxonomy, words)


def sentence_encoder_of(config: TrainConfig) -> Network | None:
    """Read the sentence encoder that a training starts from, with its tokenizer; None if it names none.

    Raises:
        ArtifactError, ConfigError: as `read_sentence_encoder`.
    """
    texts = config.of_texts
    if texts is None or not texts.sentences:
        return None
    return read_sentence_encoder(texts.encoder, texts.field, prefix=texts.prefix)


def sentence_shape(config: EncoderTraining, encoder: Network, taxonomy: Taxonomy, space: LabelSpace | None) -> Settings:
    """Return the shape of a model over a sentence encoder."""
    outputs = len(space or taxonomy.leaves)
    return SENTENCE_SHAPES[config.model](config, outputs, taxonomy, encoder.model.config.to_dict())


def load_weights(network: Any, config: TrainConfig, words: TextIndex | None = None) -> Integers | None:
    """Fill a new network with the weights that the settings name: a backbone's, a sentence encoder's or word vectors.

    Returns:
        The numbers of the words that got a vector; None if the settings name no word vectors.

    Raises:
        ArtifactError: if they cannot be read, or do not fit.
    """
    if pictures := config.of_pictures:
        load_backbone_weights(network.encoder, pictures.weights)
    elif encoder := sentence_encoder_of(config):
        network.encoder.load_state_dict(encoder.model.state_dict())
    elif isinstance(words, WordIndex) and config.of_texts and config.of_texts.word_vectors != "none":
        return load_word_vectors(network, words, config.of_texts.word_vectors)
    return None


def _shape(kind: type[Shape], config: EncoderTraining, **others: Any) -> Shape:
    """Make a network's configuration of the settings that have the names of its fields, and of other values."""
    same = {name: getattr(config, name) for name in kind.__dataclass_fields__ if hasattr(config, name)}
    return kind(**same | others)


def _classifier(config: ClassifierTraining | ImageLabelsTraining, outputs: int, *_: Any) -> Classifier:
    return Classifier(_shape(ClassifierConfig, config, classes=outputs))


def _spelling(
    kind: type[Shape], config: EncoderDecoderTraining | TextEncoderDecoderTraining, taxonomy: Taxonomy, **others: Any
) -> Shape:
    """Make the configuration of a network that spells paths."""
    widths = dict.fromkeys(("attention_dim", "decoder_dim"), config.hidden_dim)
    return _shape(kind, config, vocabulary_size=len(Vocabulary.of(taxonomy)), **widths, **others)


def _encoder_decoder(config: EncoderDecoderTraining, _: int, taxonomy: Taxonomy, __: Any) -> EncoderDecoder:
    return EncoderDecoder(_spelling(EncoderDecoderConfig, config, taxonomy, embedding_dim=config.hidden_dim))


def _text(config: TextTraining, outputs: int, _: Taxonomy, words: WordIndex) -> TextNetwork:
    return TextNetwork(_shape(TextConfig, config, words=len(words), outputs=outputs))


def _text_encoder_decoder(
    config: TextEncoderDecoderTraining, _: int, taxonomy: Taxonomy, words: WordIndex
) -> TextEncoderDecoder:
    return TextEncoderDecoder(_spelling(TextDecoderConfig, config, taxonomy, words=len(words)))


def _sentence(config: TextTraining, outputs: int, _: Taxonomy, encoder: Mapping[str, Any]) -> Settings:
    return _shape(SentenceClassifierConfig, config, outputs=outputs, **encoder)


def _sentence_encoder_decoder(
    config: TextEncoderDecoderTraining, _: int, taxonomy: Taxonomy, encoder: Mapping[str, Any]
) -> Settings:
    return _spelling(SentenceDecoderConfig, config, taxonomy, **encoder)


NETWORKS: dict[str, Callable[..., PathModel]] = {
    "classifier": _classifier,
    "image-labels": _classifier,
    "encoder-decoder": _encoder_decoder,
    "text": _text,
    "text-encoder-decoder": _text_encoder_decoder,
}
"""The function that builds the network of each kind of `atlas_ray.training.settings.TRAININGS`, unless its shape is
given."""
SENTENCE_SHAPES: dict[str, Callable[..., Settings]] = {
    "text": _sentence,
    "text-encoder-decoder": _sentence_encoder_decoder,
}
"""The function that makes the shape of each kind's network if a sentence encoder reads its texts."""
