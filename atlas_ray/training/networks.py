"""The network that a training starts from."""

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
    PictureTraining,
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
    """Build the network that settings ask for, with random weights.

    Args:
        config: The settings.
        taxonomy: Its leaves are the classes, its names the tokens.
        words: What a model of texts knows.
        fusion: The shape of a policy.
        space: What a model of labels names.
    """
    if fusion is not None:
        return build_fusion(fusion)
    outputs = len(space or taxonomy.leaves)
    if isinstance(config, TextTraining):
        assert words is not None
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
    if isinstance(config, ClassifierTraining | ImageLabelsTraining):
        return Classifier(
            ClassifierConfig(
                classes=outputs,
                backbone=config.backbone,
                image_size_px=config.image_size_px,
                hidden_dim=config.hidden_dim,
                dropout=config.dropout,
            )
        )
    assert isinstance(config, EncoderDecoderTraining)
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


def load_weights(network: PathModel, config: TrainConfig, words: WordIndex | None = None) -> None:
    """Fill a new network with the weights that settings name: a backbone's, or word vectors.

    Raises:
        ArtifactError: where they cannot be had, or do not fit.
    """
    if isinstance(config, PictureTraining):
        assert isinstance(network, Classifier | EncoderDecoder)
        load_backbone_weights(network.encoder, config.weights)
    elif isinstance(config, TextTraining) and config.word_vectors != "none":
        assert isinstance(network, TextNetwork)
        assert words is not None
        load_word_vectors(network, words, config.word_vectors)
