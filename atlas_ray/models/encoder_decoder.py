"""The encoder-decoder: a picture to a category path, token by token.

A ResNet encodes the picture, an LSTM with soft attention spells the path level by level (Atlas,
Umaashankar et al. 2019, after "Show, Attend and Tell", Xu et al. 2015).

Dimensions: batch; hypotheses (partial paths a picture); vocabulary; cells and regions as in
`atlas_ray.models.attention`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.models.attention import Attention, Grid, Regions
from atlas_ray.models.backbone import Backbone
from atlas_ray.models.resnet import FEATURES
from atlas_ray.models.transformer import TransformerDecoder
from atlas_ray.settings import BACKBONES, check_settings, setting
from atlas_ray.taxonomy.vocabulary import START

State = tuple[Tensor, ...]
"""The decoder's memory of a prefix: tensors of (batch, hypotheses, ...)."""


DECODERS = ("lstm", "transformer")
NORMALIZATIONS = ("vocabulary", "taxonomy")


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
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
        check_settings(self)
        if self.decoder == "transformer" and self.decoder_dim % self.heads:
            raise ConfigError(f"decoder_dim is {self.decoder_dim}; expected a multiple of the {self.heads} heads")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


class LstmDecoder(nn.Module):
    """The LSTM with attention and gate."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        encoder_dim = FEATURES[config.backbone]
        self.attention = Attention(
            encoder_dim=encoder_dim,
            decoder_dim=config.decoder_dim,
            attention_dim=config.attention_dim,
            image_size_px=config.image_size_px,
            pooled_size=config.pooled_size,
        )
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_dim)
        self.decode_step = nn.LSTMCell(config.embedding_dim + encoder_dim, config.decoder_dim)
        self.init_h = nn.Linear(encoder_dim, config.decoder_dim)
        self.init_c = nn.Linear(encoder_dim, config.decoder_dim)
        self.f_beta = nn.Linear(config.decoder_dim, encoder_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(config.decoder_dim, config.vocabulary_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.fc.weight, -0.1, 0.1)
        nn.init.zeros_(self.fc.bias)

    @property
    def regions(self) -> Regions:
        """What attention weights are over."""
        return self.attention.regions

    def grid(self, features: Tensor) -> Grid:
        """Prepare the encoder's output, (batch, encoder_dim, rows, columns), for many steps."""
        return self.attention.grid(features)

    def start(self, grid: Grid) -> State:
        """Return the state before <start>: (batch, 1, decoder_dim), twice."""
        return self.init_h(grid.mean)[:, None], self.init_c(grid.mean)[:, None]

    def step(self, tokens: Tensor, state: State, grid: Grid) -> tuple[Tensor, State, Tensor]:
        """Read one token of each hypothesis.

        Args:
            tokens: (batch, hypotheses) int64.
            state: What `start` or the step before returned for these hypotheses.
            grid: The pictures.

        Returns:
            Logits of the next token (batch, hypotheses, vocabulary); the new state; the attention
            weights (batch, hypotheses, regions).
        """
        hidden, memory = state
        context, weights = self.attention(grid, hidden)
        gated = torch.sigmoid(self.f_beta(hidden)) * context
        read = torch.cat([self.embedding(tokens).to(gated.dtype), gated], dim=-1)
        flat = (tensor.flatten(0, 1) for tensor in (read, hidden, memory))
        read_flat, hidden_flat, memory_flat = flat
        hidden_flat, memory_flat = self.decode_step(read_flat, (hidden_flat, memory_flat))
        shape = tokens.shape
        hidden, memory = hidden_flat.unflatten(0, shape), memory_flat.unflatten(0, shape)
        return self.fc(self.dropout(hidden)), (hidden, memory), weights


def _transformer(config: EncoderDecoderConfig) -> TransformerDecoder:
    return TransformerDecoder(
        encoder_dim=FEATURES[config.backbone],
        dim=config.decoder_dim,
        layers=config.layers,
        heads=config.heads,
        dropout=config.dropout,
        vocabulary_size=config.vocabulary_size,
        image_size_px=config.image_size_px,
        pooled_size=config.pooled_size,
    )


class EncoderDecoder(nn.Module):
    """Encoder and decoder together."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Backbone(config.backbone)
        self.decoder: Any = LstmDecoder(config) if config.decoder == "lstm" else _transformer(config)

    def encode(self, pictures: Tensor) -> Any:
        """Encode (batch, 3, size, size) pictures, RGB 0 to 255, into what the decoder reads of them."""
        return self.decoder.grid(self.encoder(pictures))

    def forward(self, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run with teacher forcing.

        Args:
            pictures: (batch, 3, size, size) RGB, 0 to 255.
            tokens: (batch, steps) the true path's tokens, without <start>.

        Returns:
            Logits (batch, steps, vocabulary), where step i predicts `tokens[:, i]`, and the
            attention weights (batch, steps, regions).
        """
        return self.spell(self.encode(pictures), tokens)

    def spell(self, grid: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run the decoder alone over given paths; as `forward`, from encoded pictures."""
        state = self.decoder.start(grid)
        given = torch.cat([torch.full_like(tokens[:, :1], START), tokens[:, :-1]], dim=1)
        logits, weights = [], []
        for position in range(tokens.shape[1]):
            step, state, weight = self.decoder.step(given[:, position : position + 1], state, grid)
            logits.append(step)
            weights.append(weight)
        return torch.cat(logits, dim=1), torch.cat(weights, dim=1)

    def attention_maps(self, grid: Any, tokens: Tensor) -> Tensor:
        """Return where the decoder looked while it spelled a path.

        Args:
            grid: The encoded pictures.
            tokens: (batch, steps) one path a picture.

        Returns:
            (batch, steps, pooled_size, pooled_size); each map sums to 1.
        """
        maps: Tensor = self.decoder.regions.maps(self.spell(grid, tokens)[1])
        return maps


class DecoderStep:
    """The decoder over a batch of pictures as the step function that a search takes."""

    def __init__(self, model: EncoderDecoder, grid: Any) -> None:
        self._decoder = model.decoder
        self._grid = grid
        self.batch = grid.features.shape[0]
        self.device = grid.features.device
        self.normalized_by_taxonomy = model.config.normalization == "taxonomy"

    def start(self) -> State:
        """Return the state of the empty prefix."""
        state: State = self._decoder.start(self._grid)
        return state

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Return log p(next token) in float32 and the new state."""
        logits, state, _ = self._decoder.step(tokens, state, self._grid)
        return logits.log_softmax(-1, dtype=torch.float32), state
