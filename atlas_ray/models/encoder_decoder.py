"""The encoder-decoder: a picture to a category path, token by token.

A ResNet encodes the picture, an LSTM with soft attention spells the path level by level (Atlas,
section 5.2, after "Show, Attend and Tell", Xu et al. 2015).

Dimensions: batch; hypotheses (partial paths a picture); vocabulary; cells and regions as in
`atlas_ray.models.attention`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.models.attention import Attention, Grid
from atlas_ray.models.backbone import FEATURES, Backbone
from atlas_ray.taxonomy.vocabulary import START

State = tuple[Tensor, ...]
"""The decoder's memory of a prefix: tensors of (batch, hypotheses, ...)."""


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """The shape of the network; it is stored in the artifact."""

    vocabulary_size: int
    """Tokens, the three special ones included."""
    backbone: str = "resnet101"
    """resnet18, resnet34, resnet50 or resnet101."""
    image_size_px: int = 150
    """The side of the square picture that the encoder takes."""
    pooled_size: int = 14
    """The side of the grid that attention looks at."""
    embedding_dim: int = 512
    attention_dim: int = 512
    decoder_dim: int = 512
    dropout: float = 0.5
    """Dropout before the decoder's output layer."""

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        if self.backbone not in FEATURES:
            raise ConfigError(f"backbone {self.backbone!r} is unknown; expected one of {', '.join(FEATURES)}")
        for field in (
            "image_size_px",
            "pooled_size",
            "embedding_dim",
            "attention_dim",
            "decoder_dim",
        ):
            if not 1 <= getattr(self, field) <= 8192:
                raise ConfigError(f"{field} is {getattr(self, field)!r}; expected 1 to 8192")
        if self.image_size_px < 32:
            raise ConfigError(f"image_size_px is {self.image_size_px}; a ResNet needs at least 32")
        if self.vocabulary_size < 4:
            raise ConfigError(f"vocabulary_size is {self.vocabulary_size}; expected 3 special tokens and names")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; expected 0 up to, but not including, 1")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


class Decoder(nn.Module):
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


class EncoderDecoder(nn.Module):
    """Encoder and decoder together."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Backbone(config.backbone)
        self.decoder = Decoder(config)

    def encode(self, pictures: Tensor) -> Grid:
        """Encode (batch, 3, size, size) pictures, RGB 0 to 255."""
        return self.decoder.attention.grid(self.encoder(pictures))

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

    def spell(self, grid: Grid, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run the decoder alone over given paths; as `forward`, from encoded pictures."""
        state = self.decoder.start(grid)
        given = torch.cat([torch.full_like(tokens[:, :1], START), tokens[:, :-1]], dim=1)
        logits, weights = [], []
        for position in range(tokens.shape[1]):
            step, state, weight = self.decoder.step(given[:, position : position + 1], state, grid)
            logits.append(step)
            weights.append(weight)
        return torch.cat(logits, dim=1), torch.cat(weights, dim=1)

    def attention_maps(self, grid: Grid, tokens: Tensor) -> Tensor:
        """Return where the decoder looked while it spelled a path.

        Args:
            grid: The encoded pictures.
            tokens: (batch, steps) one path a picture.

        Returns:
            (batch, steps, pooled_size, pooled_size); each map sums to 1.
        """
        return self.decoder.attention.maps(self.spell(grid, tokens)[1])


class DecoderStep:
    """The decoder over a batch of pictures as the step function that a search takes."""

    def __init__(self, model: EncoderDecoder, grid: Grid) -> None:
        self._decoder = model.decoder
        self._grid = grid
        self.batch = grid.features.shape[0]
        self.device = grid.features.device

    def start(self) -> State:
        """Return the state of the empty prefix."""
        return self._decoder.start(self._grid)

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Return log p(next token) in float32 and the new state."""
        logits, state, _ = self._decoder.step(tokens, state, self._grid)
        return logits.log_softmax(-1, dtype=torch.float32), state
