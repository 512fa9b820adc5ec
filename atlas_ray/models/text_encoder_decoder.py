"""The encoder-decoders of texts, which spell a category path from a title or a description.

The decoders are those of pictures. Their attention goes over the positions of a text: what the convolution of the CNN
makes of each word, or what a sentence encoder makes of each token (the sequence-to-sequence models of Atlas's related
work).

Dimensions: batch; length (words or tokens of a text).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from atlas_ray.modalities.texts import PAD
from atlas_ray.models.decoders.attention import Positions
from atlas_ray.models.decoders.decoder import DecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.sentences import SentenceConfig, SentenceEncoder
from atlas_ray.models.text import WordsConfig, filtered_words, new_embedding


@dataclass(frozen=True, kw_only=True)
class TextDecoderConfig(DecoderConfig, WordsConfig):
    """The shape of a network over words; it is stored in the artifact.

    The names of a path have vectors as wide as those of words.
    """

    @property
    def encoder_dim(self) -> int:
        """The width of a word's features."""
        return self.filters

    def regions(self) -> Positions:
        """Lay out the words."""
        return Positions()


@dataclass(frozen=True, kw_only=True)
class SentenceDecoderConfig(DecoderConfig, SentenceConfig):
    """The shape of a network over a sentence encoder; it is stored in the artifact."""

    @property
    def encoder_dim(self) -> int:
        """The width of a token's vector."""
        return self.vector_width

    def regions(self) -> Positions:
        """Lay out the tokens."""
        return Positions()


class WordGrid(nn.Module):
    """The layers of the CNN up to its convolution, with ReLU."""

    def __init__(self, config: WordsConfig) -> None:
        super().__init__()
        self.words = new_embedding(config)
        self.convolution = nn.Conv1d(config.embedding_dim, config.filters, config.width)

    def forward(self, words: Tensor) -> Tensor:
        """Turn words, (batch, length) with `PAD` at the end, into (batch, filters, 1, length), 0 past a text's end."""
        filtered = filtered_words(self.convolution, self.words(words.long())).relu()
        return (filtered * (words != PAD)[:, None])[:, :, None]


class TokenGrid(SentenceEncoder):
    """A sentence encoder that gives each token's vector."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens, (batch, length) with -1 past a text's end, into (batch, width, 1, length), 0 there."""
        return self.token_vectors(tokens).transpose(1, 2)[:, :, None]


class TextEncoderDecoder(EncoderDecoder):
    """An encoder-decoder over words."""

    def new_encoder(self) -> nn.Module:
        """Build the encoder."""
        return WordGrid(self.config)

    @property
    def word_vectors(self) -> nn.Embedding:
        """The layer of word vectors."""
        words: nn.Embedding = self.encoder.words
        return words

    def features(self, words: Tensor) -> Tensor:
        """Turn words, (batch, length), into what `decoder.grid` takes: (batch, features, 1, length)."""
        features: Tensor = self.encoder(words)
        return features


class SentenceEncoderDecoder(TextEncoderDecoder):
    """An encoder-decoder over the tokens of a sentence encoder."""

    def new_encoder(self) -> nn.Module:
        """Build the encoder."""
        return TokenGrid(self.config)
