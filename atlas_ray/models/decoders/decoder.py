"""The configuration and the interface of all decoders.

Dimensions: batch; hypotheses (partial paths a picture); vocabulary; regions as in
`atlas_ray.models.decoders.attention`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.decoders import DECODERS
from atlas_ray.models.decoders.attention import Positions, Regions
from atlas_ray.settings import Settings, setting

State = tuple[Tensor, ...]
"""A decoder's memory of a prefix: tensors of shape (batch, hypotheses, ...)."""
NORMALIZATIONS = ("vocabulary", "taxonomy")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Settings):
    """The shape of a decoder."""

    vocabulary_size: int = setting("number of tokens, with the three special ones", low=4, high=10_000_000)
    decoder: str = setting("network that spells the path", "lstm", choices=DECODERS)
    embedding_dim: int = setting("width of a token's vector", 512, low=1, high=8192)
    attention_dim: int = setting("width of the LSTM's attention", 512, low=1, high=8192)
    decoder_dim: int = setting("width of the decoder's state", 512, low=1, high=8192)
    layers: int = setting("number of the transformer's layers", 2, low=1, high=64)
    lstm_layers: int = setting("number of LSTMs, each of which reads the state of the one before", 1, low=1, high=64)
    heads: int = setting("number of the transformer's attention heads", 4, low=1, high=64)
    dropout: float = setting("share of values dropped before the decoder's output layer", 0.5, low=0, high=0.99)
    normalization: str = setting(
        "tokens over which the probabilities of a next token sum to 1: all, or those that the taxonomy allows there",
        "vocabulary",
        choices=NORMALIZATIONS,
    )

    def __post_init__(self) -> None:
        """Refuse a shape that no network can be built from."""
        super().__post_init__()
        DECODERS[self.decoder].check(self, "decoder_dim")

    @property
    def encoder_dim(self) -> int:
        """The width of the encoder's features."""
        raise NotImplementedError

    def regions(self) -> Regions | Positions:
        """Lay out what attention looks at of the encoder's features."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(DecoderConfig):
    """The shape of the network of pictures; it is stored in the artifact."""

    backbone: str = setting("picture encoder", "resnet101", choices=BACKBONES)
    image_size_px: int = setting("side of the square picture that the encoder takes", 150, low=32, high=8192)
    pooled_size: int = setting("side of the grid that attention looks at", 14, low=1, high=8192)

    @property
    def encoder_dim(self) -> int:
        """The width of the encoder's features."""
        return BACKBONES[self.backbone].features

    def regions(self) -> Regions:
        """Lay out the pooled grid."""
        return Regions(BACKBONES[self.backbone].grid_size(self.image_size_px), self.pooled_size)


class Decoder(nn.Module, ABC):
    """A network that spells category paths, one token of each hypothesis at a time, as every search asks for them.

    It is built from a `DecoderConfig`.
    """

    regions: Regions | Positions
    """The regions that attention weights are given for."""

    @abstractmethod
    def grid(self, features: Tensor) -> Any:
        """Prepare the encoder's output, (batch, encoder_dim, rows, columns), for many steps.

        The result has an attribute `features`, what `regions.cells` makes of it; only the decoder reads the rest.
        """

    @abstractmethod
    def start(self, grid: Any) -> State:
        """Return the state before <start>, for one hypothesis of each picture."""

    @abstractmethod
    def step(self, tokens: Tensor, state: State, grid: Any) -> tuple[Tensor, State, Tensor]:
        """Read one token of each hypothesis.

        Args:
            tokens: (batch, hypotheses) int64.
            state: What `start` or the step before returned for these hypotheses.
            grid: The pictures.

        Returns:
            Logits of the next token (batch, hypotheses, vocabulary); the new state; the attention
            weights (batch, hypotheses, regions), which sum to 1.
        """
