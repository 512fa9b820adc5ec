"""The model of titles or descriptions over a sentence encoder that others trained, which training may change.

After the pooled vector of a text come the layers of the CNN's end: a dense one with ReLU, dropout and the output.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from atlas_ray.models.sentences import SentenceConfig, SentenceEncoder
from atlas_ray.settings import setting


@dataclass(frozen=True, kw_only=True)
class SentenceClassifierConfig(SentenceConfig):
    """The shape of the network; it is stored in the artifact."""

    outputs: int = setting("number of leaf paths, in the taxonomy's order, or of labels", low=1, high=10_000_000)
    hidden_dim: int = setting("width of the dense layer", 170, low=1, high=8192)
    dropout: float = setting("share of values dropped before the output layer", 0.5, low=0, high=0.99)


class DenseHead(nn.Module):
    """The layers after the encoder."""

    def __init__(self, width: int, config: SentenceClassifierConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_dim, config.outputs)


class SentenceClassifier(nn.Module):
    """A network from tokens to logits. The answer for a text does not depend on the others in its batch."""

    def __init__(self, config: SentenceClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SentenceEncoder(config)
        self.head = DenseHead(self.encoder.width, config)

    def features(self, tokens: Tensor) -> Tensor:
        """Turn tokens, (batch, length) int with -1 past a text's end, into (batch, hidden_dim)."""
        features: Tensor = self.head.dense(self.encoder(tokens)).relu()
        return features

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn (batch, length) tokens into logits (batch, outputs)."""
        logits: Tensor = self.head.output(self.head.dropout(self.features(tokens)))
        return logits
