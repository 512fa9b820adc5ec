"""The encoder-decoder, which gives a picture a category path, token by token.

A backbone encodes the picture, and a decoder with soft attention spells the path level by level (Atlas, Umaashankar
et al. 2019, after "Show, Attend and Tell", Xu et al. 2015).

Dimensions: batch; hypotheses (partial paths a picture); vocabulary; regions as in
`atlas_ray.models.decoders.attention`.
"""

import pkgutil
from typing import Any

import torch
from torch import Tensor, nn

from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.models.decoders import DECODERS
from atlas_ray.models.decoders.decoder import Decoder, DecoderConfig, State
from atlas_ray.taxonomy.vocabulary import START


class EncoderDecoder(nn.Module):
    """The encoder and the decoder together."""

    config: Any
    encoder: Any

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = self.new_encoder()
        self.decoder: Decoder = pkgutil.resolve_name(DECODERS[config.decoder].network)(config)

    def new_encoder(self) -> nn.Module:
        """Build the encoder of `config`; a subclass reads something else than pictures."""
        return Backbone(self.config.backbone)

    def encode(self, pictures: Tensor) -> Any:
        """Encode (batch, 3, size, size) pictures, RGB 0 to 255, into what the decoder reads."""
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
        """Run only the decoder over given paths; as `forward`, but from encoded pictures."""
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
        return self.decoder.regions.maps(self.spell(grid, tokens)[1])


class DecoderStep:
    """The step function of a search: the decoder over a batch of pictures."""

    def __init__(self, model: EncoderDecoder, grid: Any) -> None:
        self._decoder = model.decoder
        self._grid = grid
        self.batch = grid.features.shape[0]
        self.device = grid.features.device
        self.normalized_by_taxonomy = model.config.normalization == "taxonomy"

    def start(self) -> State:
        """Return the state of the empty prefix."""
        return self._decoder.start(self._grid)

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Return log p(next token) in float32 and the new state."""
        logits, state, _ = self._decoder.step(tokens, state, self._grid)
        return logits.log_softmax(-1, dtype=torch.float32), state
