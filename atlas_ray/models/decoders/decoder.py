"""The settings and the interface of all decoders.

Dimensions: batch; hypotheses (partial paths a picture); vocabulary; regions as in
`atlas_ray.models.decoders.attention`.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.decoders import DECODERS
from atlas_ray.models.decoders.attention import Regions
from atlas_ray.settings import Settings, setting

State = tuple[Tensor, ...]
"""The decoder's memory of a prefix: tensors of (batch, hypotheses, ...)."""
NORMALIZATIONS = ("vocabulary", "taxonomy")


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(Settings):
    """The shape of the network; it is stored in the artifact."""

    vocabulary_size: int = setting("tokens, the three special ones included", low=4, high=10_000_000)
    backbone: str = setting("the encoder", "resnet101", choices=BACKBONES)
    image_size_px: int = setting("side of the square picture that the encoder takes", 150, low=32, high=8192)
    pooled_size: int = setting("side of the grid that attention looks at", 14, low=1, high=8192)
    decoder: str = setting("what spells the path", "lstm", choices=DECODERS)
    embedding_dim: int = setting("of a token", 512, low=1, high=8192)
    attention_dim: int = setting("of the LSTM's attention", 512, low=1, high=8192)
    decoder_dim: int = setting("of the decoder's state", 512, low=1, high=8192)
    layers: int = setting("of the transformer", 2, low=1, high=64)
    heads: int = setting("of the transformer's attention", 4, low=1, high=64)
    dropout: float = setting("before the decoder's output layer", 0.5, low=0, high=0.99)
    normalization: str = setting(
        "what the probabilities of a next token sum to 1 over: all tokens, or those that the taxonomy allows there",
        "vocabulary",
        choices=NORMALIZATIONS,
    )

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        super().__post_init__()
        DECODERS[self.decoder].check(self, "decoder_dim")


class Decoder(nn.Module):
    """A network that spells category paths, a token of each hypothesis at a time, so that every search can drive it.

    It is built from an `EncoderDecoderConfig`.
    """

    regions: Regions
    """What attention weights are over."""

    def grid(self, features: Tensor) -> Any:
        """Prepare the encoder's output, (batch, encoder_dim, rows, columns), for many steps.

        What it returns has an attribute `features`, of (batch, ...); the rest is for the decoder alone.
        """
        raise NotImplementedError

    def start(self, grid: Any) -> State:
        """Return the state before <start>, of one hypothesis a picture."""
        raise NotImplementedError

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
        raise NotImplementedError
