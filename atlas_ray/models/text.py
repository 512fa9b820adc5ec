"""The model of titles and of descriptions: the late-fusion paper's change of Kim's CNN.

Words embedded, a convolution of 200 filters of width 5, its maximum over the text, a dense layer of
170 with ReLU, dropout and the output (Wirojwatanakul and Wangperawong 2019).
"""

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atlas_ray.errors import ArtifactError
from atlas_ray.io import storage
from atlas_ray.modalities.texts import FIELDS, FIRST, PAD, WordIndex
from atlas_ray.settings import check_settings, setting


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The shape of the network; it is stored in the artifact."""

    field: str = setting("what it reads of a product", choices=tuple(FIELDS))
    words: int = setting("numbers of words: the known ones, and two more", low=2, high=10_000_000)
    outputs: int = setting("leaf paths, in the taxonomy's order, or labels", low=1, high=10_000_000)
    embedding_dim: int = setting("width of a word's vector", 300, low=1, high=8192)
    filters: int = setting("of the convolution", 200, low=1, high=8192)
    width: int = setting("words that a filter sees", 5, low=1, high=57)
    hidden_dim: int = setting("width of the dense layer", 170, low=1, high=8192)
    dropout: float = setting("before the output layer", 0.5, low=0, high=0.99)

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        check_settings(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


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


def load_word_vectors(network: TextNetwork, words: WordIndex, uri: str) -> int:
    """Fill the embedding from a file of GloVe's layout; words that it lacks stay as they are.

    Args:
        network: What to fill.
        words: Its words.
        uri: A text file, plain or gzip: on each line a word and its numbers, parted by spaces.

    Returns:
        How many of the words the file has.

    Raises:
        ArtifactError: where there is no such file, or naming the line whose numbers are not as many as
            the embedding is wide.
    """
    wide = network.config.embedding_dim
    if not storage.exists(uri):
        raise ArtifactError(f"{uri}: no such file of word vectors")
    numbers = {word.encode(): number for number, word in enumerate(words.words, FIRST)}
    rows, vectors = [], []
    place = storage.locate(uri)
    with place.filesystem.open_input_stream(place.path) as stream, io.BufferedReader(stream) as lines:
        for line_number, line in enumerate(lines, 1):
            word, *values = line.rstrip().rsplit(b" ", wide)  # a word of some files has spaces in it
            number = numbers.get(word)
            if number is None and line_number > 1:
                continue
            try:
                vector = np.array(values, dtype=np.float32)
            except ValueError:
                vector = np.zeros(0, np.float32)
            if len(vector) != wide or not np.isfinite(vector).all():
                raise ArtifactError(
                    f"{uri}, line {line_number}: no word and {wide} numbers; give the file's own width as embedding_dim"
                )
            if number is not None:
                rows.append(number)
                vectors.append(vector)
    if rows:
        with torch.no_grad():
            network.encoder.weight[torch.tensor(rows)] = torch.from_numpy(np.stack(vectors))
    return len(rows)
