"""The Atlas paper's decoder: an LSTM with soft attention and a gate. Further LSTMs may be stacked on it.

Dimensions: as in `atlas_ray.models.decoders.decoder`.
"""

import torch
from torch import Tensor, nn

from atlas_ray.models.decoders.attention import Attention, Grid
from atlas_ray.models.decoders.decoder import Decoder, DecoderConfig, State


class LstmDecoder(Decoder):
    """One or more LSTMs with attention and gate; the state of the last one attends and is read."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        encoder_dim = config.encoder_dim
        self.attention = Attention(
            encoder_dim=encoder_dim,
            decoder_dim=config.decoder_dim,
            attention_dim=config.attention_dim,
            regions=config.regions(),
        )
        self.regions = self.attention.regions
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_dim)
        self.decode_step = nn.LSTMCell(config.embedding_dim + encoder_dim, config.decoder_dim)
        self.stacked = nn.ModuleList(
            nn.LSTMCell(config.decoder_dim, config.decoder_dim) for _ in range(config.lstm_layers - 1)
        )
        self.init_h = nn.Linear(encoder_dim, config.lstm_layers * config.decoder_dim)
        self.init_c = nn.Linear(encoder_dim, config.lstm_layers * config.decoder_dim)
        self.f_beta = nn.Linear(config.decoder_dim, encoder_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(config.decoder_dim, config.vocabulary_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.fc.weight, -0.1, 0.1)
        nn.init.zeros_(self.fc.bias)

    def grid(self, features: Tensor) -> Grid:
        """Prepare the encoder's output; as `Decoder.grid`."""
        return self.attention.grid(features)

    def start(self, grid: Grid) -> State:
        """Return the state before <start>: two tensors (batch, 1, lstm_layers x decoder_dim)."""
        return self.init_h(grid.mean)[:, None], self.init_c(grid.mean)[:, None]

    def step(self, tokens: Tensor, state: State, grid: Grid) -> tuple[Tensor, State, Tensor]:
        """Read one token of each hypothesis; as `Decoder.step`."""
        cells = (self.decode_step, *self.stacked)
        hidden, memory = (list(tensor.chunk(len(cells), -1)) for tensor in state)
        context, weights = self.attention(grid, hidden[-1])
        gated = torch.sigmoid(self.f_beta(hidden[-1])) * context
        read = torch.cat([self.embedding(tokens).to(gated.dtype), gated], dim=-1)
        for layer, cell in enumerate(cells):
            flat = (tensor.flatten(0, 1) for tensor in (read, hidden[layer], memory[layer]))
            read_flat, hidden_flat, memory_flat = flat
            after = cell(read_flat, (hidden_flat, memory_flat))
            hidden[layer], memory[layer] = (tensor.unflatten(0, tokens.shape) for tensor in after)
            read = hidden[layer]
        return self.fc(self.dropout(read)), (torch.cat(hidden, -1), torch.cat(memory, -1)), weights
