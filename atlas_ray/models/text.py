"""The model of titles and of descriptions, the late-fusion paper's variant of Kim's CNN.

It has word vectors, a convolution of 200 filters of width 5, its maximum over the text, a dense layer of 170 with
ReLU, dropout and the output (Wirojwatanakul and Wangperawong 2019).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atlas_ray.modalities.texts import FIELDS, PAD
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class WordsConfig(Settings):
    """The shape of the layers that read words."""

    field: str = setting("text of a product that is read", choices=tuple(FIELDS))
    words: int = setting("size of the vocabulary, with padding and the unknown word", low=2, high=10_000_000)
    embedding_dim: int = setting("width of a word's vector", 300, low=1, high=8192)
    filters: int = setting("number of the convolution's filters", 200, low=1, high=8192)
    width: int = setting("words that a filter sees", 5, low=1, high=57)


@dataclass(frozen=True, kw_only=True)
class TextConfig(WordsConfig):
    """The shape of the network; it is stored in the artifact."""

    outputs: int = setting("number of leaf paths, in the taxonomy's order, or of labels", low=1, high=10_000_000)
    hidden_dim: int = setting("width of the dense layer", 170, low=1, high=8192)
    dropout: float = setting("share of values dropped before the output layer", 0.5, low=0, high=0.99)


def new_embedding(config: WordsConfig) -> nn.Embedding:
    """Build a layer of word vectors, random but for that of `PAD`, which is 0."""
    embedding = nn.Embedding(config.words, config.embedding_dim, padding_idx=PAD)
    nn.init.normal_(embedding.weight, std=0.1)
    with torch.no_grad():
        embedding.weight[PAD] = 0
    return embedding


def filtered_words(convolution: nn.Conv1d, embedded: Tensor) -> Tensor:
    """Convolve word vectors, (batch, length, embedding_dim), each with its neighbours: (batch, filters, length)."""
    (width,) = convolution.kernel_size
    before = (width - 1) // 2
    filtered: Tensor = convolution(nn.functional.pad(embedded.transpose(1, 2), (before, width - 1 - before)))
    return filtered


class TextHead(nn.Module):
    """The layers after the embedding."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(config.embedding_dim, config.filters, config.width)
        self.dense = nn.Linear(config.filters, config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_dim, config.outputs)

    def features(self, embedded: Tensor, present: Tensor) -> Tensor:
        """Turn word vectors (batch, length, embedding_dim), with a flag for each word, into (batch, hidden_dim)."""
        filtered = filtered_words(self.convolution, embedded)
        largest = filtered.masked_fill(~present[:, None], float("-inf")).amax(2)
        largest = torch.where(present.any(1)[:, None], largest, 0.0)
        features: Tensor = self.dense(largest).relu()
        return features


class TextNetwork(nn.Module):
    """A network from words to logits. The answer for a text does not depend on the others in its batch."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = new_embedding(config)
        self.head = TextHead(config)

    @property
    def word_vectors(self) -> nn.Embedding:
        """The layer of word vectors."""
        return self.encoder

    def features(self, words: Tensor) -> Tensor:
        """Turn words, (batch, length) with `PAD` at the end, into (batch, hidden_dim).

        A filter looks at each word and its neighbours. For a text without words, all filters give 0.
        """
        present = words != PAD
        used = max(1, int(present.sum(1).max()))  # skips columns that are padding in every text
        return self.head.features(self.encoder(words[:, :used].long()), present[:, :used])

    def forward(self, words: Tensor) -> Tensor:
        """Turn (batch, length) words into logits (batch, outputs)."""
        logits: Tensor = self.head.output(self.head.dropout(self.features(words)))
        return logits
