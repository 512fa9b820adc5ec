"""The network that a training starts from."""

from collections.abc import Callable
from typing import Any

from atlas_ray.modalities.texts import WordIndex
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.models.path_model import PathModel
from atlas_ray.models.text import TextConfig, TextNetwork
from atlas_ray.models.weights import load_backbone_weights, load_word_vectors
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary
from atlas_ray.training.settings import (
    ClassifierTraining,
    EncoderDecoderTraining,
    ImageLabelsTraining,
    TextTraining,
    TrainConfig,
)


def build_network(
    config: TrainConfig,
    taxonomy: Taxonomy,
    words: WordIndex | None = None,
    fusion: FusionConfig | None = None,
    space: LabelSpace | None = None,
) -> PathModel:
    """Build the network of these settings, with random weights.

    Args:
        config: The settings.
        taxonomy: The taxonomy, whose leaves are the classes and whose names are the tokens.
        words: The vocabulary of a model of texts.
        fusion: The shape of a policy.
        space: The labels of a model of labels.
    """
    if fusion is not None:
        return build_fusion(fusion)
    outputs = len(space or taxonomy.leaves)
    return NETWORKS[config.model](config, outputs, taxonomy, words)


def load_weights(network: Any, config: TrainConfig, words: WordIndex | None = None) -> None:
    """Fill a new network with the weights that the settings name: a backbone's, or word vectors.

    Raises:
        ArtifactError: if they cannot be read, or do not fit.
    """
    if pictures := config.of_pictures:
        load_backbone_weights(network.encoder, pictures.weights)
    elif words is not None and (vectors := getattr(config, "word_vectors", "none")) != "none":
        load_word_vectors(network, words, vectors)


def _classifier(config: ClassifierTraining | ImageLabelsTraining, outputs: int, *_: Any) -> Classifier:
    return Classifier(
        ClassifierConfig(
            classes=outputs,
            backbone=config.backbone,
            image_size_px=config.image_size_px,
            hidden_dim=config.hidden_dim,
            dropout=config.dropout,
        )
    )


def _encoder_decoder(config: EncoderDecoderTraining, _: int, taxonomy: Taxonomy, __: Any) -> EncoderDecoder:
    return EncoderDecoder(
        EncoderDecoderConfig(
            vocabulary_size=len(Vocabulary.of(taxonomy)),
            backbone=config.backbone,
            image_size_px=config.image_size_px,
            decoder=config.decoder,
            embedding_dim=config.hidden_dim,
            attention_dim=config.hidden_dim,
            decoder_dim=config.hidden_dim,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
            normalization=config.normalization,
        )
    )


def _text(config: TextTraining, outputs: int, _: Taxonomy, words: WordIndex) -> TextNetwork:
    return TextNetwork(
        TextConfig(
            field=config.field,
            words=len(words),
            outputs=outputs,
            embedding_dim=config.embedding_dim,
            filters=config.filters,
            width=config.width,
            hidden_dim=config.hidden_dim,
            dropout=config.dropout,
        )
    )


NETWORKS: dict[str, Callable[..., PathModel]] = {
    "classifier": _classifier,
    "image-labels": _classifier,
    "encoder-decoder": _encoder_decoder,
    "text": _text,
}
"""The function that builds the network of each kind of `atlas_ray.training.settings.TRAININGS`, but for policies."""
