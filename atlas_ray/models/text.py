"""The model of titles and of descriptions: the late-fusion paper's change of Kim's CNN.

Words embedded, a convolution of 200 filters of width 5, its maximum over the text, a dense layer of
170 with ReLU, dropout and the output (Wirojwatanakul and Wangperawong 2019).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atlas_ray.modalities.texts import FIELDS, PAD
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class TextConfig(Settings):
    """The shape of the network; it is stored in the artifact."""

    field: str = setting("what it reads of a product", choices=tuple(FIELDS))
    words: int = setting("numbers of words: the known ones, and two more", low=2, high=10_000_000)
    outputs: int = setting("leaf paths, in the taxonomy's order, or labels", low=1, high=10_000_000)
    embedding_dim: int = setting("width of a word's vector", 300, low=1, high=8192)
    filters: int = setting("of the convolution", 200, low=1, high=8192)
    width: int = setting("words that a filter sees", 5, low=1, high=57)
    hidden_dim: int = setting("width of the dense layer", 170, low=1, high=8192)
    dropout: float = setting("before the output layer", 0.5, low=0, high=0.99)


class TextHead(nn.Module):
    """All that follows the embedding."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.width = config.width
        self.convolution = nn.Conv1d(config.embedding_dim, config.filters, config.width)
        self.dense = nn.Linear(config.filters, config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_dim, config.outputs)

    def features(self, embedded: Tensor, there: Tensor) -> Tensor:
        """Turn vectors (batch, length, embedding_dim), and where there is a word, into (batch, hidden_dim)."""
        before = (self.width - 1) // 2
        around = nn.functional.pad(embedded.transpose(1, 2), (before, self.width - 1 - before))
        seen = self.convolution(around)  # (batch, filters, length)
        seen = seen.masked_fill(~there[:, None], float("-inf")).amax(2)
        seen = torch.where(there.any(1)[:, None], seen, 0.0)
        features: Tensor = self.dense(seen).relu()
        return features


class TextNetwork(nn.Module):
    """Words to features to logits. A text's answer does not depend on the others beside it."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Embedding(config.words, config.embedding_dim, padding_idx=PAD)
        nn.init.normal_(self.encoder.weight, std=0.1)
        with torch.no_grad():
            self.encoder.weight[PAD] = 0
        self.head = TextHead(config)

    def features(self, words: Tensor) -> Tensor:
        """Turn words, (batch, length) with `PAD` at the end, into (batch, hidden_dim).

        A filter looks at each word and its neighbours. A text without a word gives what filters that
        see nothing would.
        """
        there = words != PAD
        used = max(1, int(there.sum(1).max()))  # what is padding in all of them costs nothing
        return self.head.features(self.encoder(words[:, :used].long()), there[:, :used])

    def forward(self, words: Tensor) -> Tensor:
        """Turn (batch, length) words into logits (batch, outputs)."""
        logits: Tensor = self.head.output(self.head.dropout(self.features(words)))
        return logits
