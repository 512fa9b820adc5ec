"""A transformer decoder in place of the LSTM, which the Atlas paper names as the next step.

Each layer attends to the prefix, then to the picture's regions, then runs a feed-forward block, each after a layer
normalization and with a residual connection ("Attention Is All You Need", Vaswani et al. 2017; normalization first).
It takes the same steps as the LSTM: the memory of a prefix is the keys and values of its tokens in each layer, so
every search works with it.

Dimensions: batch; hypotheses; heads; steps (tokens of a prefix); regions as in
`atlas_ray.models.decoders.attention`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from atlas_ray.models.decoders.decoder import Decoder, DecoderConfig, State


@dataclass
class Memory:
    """A batch of pictures as the decoder reads it."""

    features: Tensor
    """(batch, cells, encoder_dim)"""
    keys: list[Tensor]
    """Each layer's keys, (batch, heads, regions, dim / heads)."""
    values: list[Tensor]
    """Each layer's values, of the same shape."""
    mean: Tensor
    """(batch, dim), the whole picture."""
    log_count: Tensor
    """(batch or 1, 1, 1, regions), the logarithm of how often each region counts."""


class TransformerLayer(nn.Module):
    """A layer, which reads one token of each hypothesis at a time."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.prefix_norm, self.picture_norm, self.forward_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.prefix_in = nn.Linear(dim, 3 * dim)
        self.prefix_out = nn.Linear(dim, dim)
        self.picture_in = nn.Linear(dim, dim)
        self.picture_out = nn.Linear(dim, dim)
        self.widen = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, log_count: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Read one token.

        Args:
            x: (batch, hypotheses, dim).
            past: Keys and values of the prefix, (batch, hypotheses, steps, dim) each.
            keys: (batch, heads, regions, dim / heads), those of the picture.
            values: The picture's values, of the same shape.
            log_count: (batch or 1, 1, 1, regions) logarithm of how often each region counts.

        Returns:
            The new x, keys and values with this token's, and the attention to the picture's
            regions, averaged over the heads, (batch, hypotheses, regions).
        """
        query, key, value = self.prefix_in(self.prefix_norm(x)).chunk(3, -1)
        key, value = (torch.cat([old, new[:, :, None]], 2) for old, new in zip(past, (key, value), strict=True))
        split = (self.heads, -1)
        scores = torch.einsum(
            "bnhd,bnthd->bnht", query.unflatten(-1, split), key.unflatten(-1, split)
        )  # (batch, hypotheses, heads, steps)
        scale = (x.shape[-1] / self.heads) ** -0.5
        weights = (scores.float() * scale).softmax(-1).to(x.dtype)
        seen = torch.einsum("bnht,bnthd->bnhd", weights, value.unflatten(-1, split)).flatten(-2)
        x = x + self.dropout(self.prefix_out(seen))
        query = self.picture_in(self.picture_norm(x)).unflatten(-1, split).transpose(1, 2)  # (batch, heads, hyp, d)
        energy = (query @ keys.transpose(-1, -2)).float() * scale + log_count
        attention = energy.softmax(-1)  # (batch, heads, hypotheses, regions)
        looked = (attention.to(x.dtype) @ values).transpose(1, 2).flatten(-2)
        x = x + self.dropout(self.picture_out(looked))
        x = x + self.dropout(self.narrow(gelu(self.widen(self.forward_norm(x)))))
        return x, (key, value), attention.mean(1)


class TransformerDecoder(Decoder):
    """A transformer that spells category paths."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim, heads = config.decoder_dim, config.heads
        self.heads = heads
        self.regions = config.regions()
        self.embedding = nn.Embedding(config.vocabulary_size, dim)
        self.position = nn.Embedding(64, dim)
        self.picture = nn.Linear(config.encoder_dim, dim)
        self.region_norm = nn.LayerNorm(dim)
        self.memory = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(config.layers))
        self.layers = nn.ModuleList(TransformerLayer(dim, heads, config.dropout / 5) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(dim, config.vocabulary_size)
        for embedding in (self.embedding, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def grid(self, features: Tensor) -> Memory:
        """Prepare the encoder's output; as `Decoder.grid`."""
        cells = self.regions.cells(features)  # (batch, cells, encoder_dim)
        regions = self.region_norm(self.regions.pooled(self.picture(cells)))  # (batch, regions, dim)
        keys, values = [], []
        for layer in self.memory:
            key, value = layer(regions).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2).chunk(2, 1)
            keys.append(key)
            values.append(value)
        log_count = self.regions.counts(cells).log()[:, None, None]
        return Memory(cells, keys, values, self.picture(self.regions.mean(cells)), log_count)

    def start(self, grid: Memory) -> State:
        """Return the state before <start>: the keys and values of no token, for each layer."""
        empty = grid.mean[:, None, None, :].expand(-1, 1, 0, -1)
        return (empty,) * (2 * len(self.layers))

    def step(self, tokens: Tensor, state: State, grid: Memory) -> tuple[Tensor, State, Tensor]:
        """Read one token of each hypothesis; as `Decoder.step`."""
        position = self.position.weight[state[0].shape[2]]
        x = (self.embedding(tokens) + position).to(grid.mean.dtype) + grid.mean[:, None]
        after: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            past = (state[2 * number], state[2 * number + 1])
            x, kept, weights = layer(x, past, grid.keys[number], grid.values[number], grid.log_count)
            after += kept
        return self.fc(self.dropout(self.norm(x))), tuple(after), weights
