"""The head, which gives the vectors of products one of N leaf paths.

Dimensions: batch; M modalities; width (of all modalities' vectors, joined); N leaves.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from atlas_ray.errors import ConfigError
from atlas_ray.modalities import MODALITIES
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Settings):
    """The shape of the network; it is stored in the artifact."""

    modalities: str = setting("modalities whose vectors are joined, by '+': picture+title")
    features: str = setting("widths of their vectors, joined by '+': 1280+170")
    encoder_id: str = setting("id of the model that makes the vectors")
    outputs: int = setting("number of leaf paths, in the taxonomy's order", low=1, high=10_000_000)
    hidden_dim: int = setting("width of the hidden layer; 0: none", 0, low=0, high=65_536)
    dropout: float = setting("share of values dropped before the last layer", 0.0, low=0, high=0.99)
    prior: bool = setting("whether the layers add to the logits of a prior, which is known and not learned", False)

    def __post_init__(self) -> None:
        """Refuse a shape that no network can be built from."""
        super().__post_init__()
        if any(name not in MODALITIES for name in self.names) or len(set(self.names)) != len(self.names):
            raise ConfigError(f"modalities is {self.modalities!r}; expected some of {'+'.join(MODALITIES)}, each once")
        if len(self.widths) != len(self.names) or not all(0 < width <= 100_000 for width in self.widths):
            raise ConfigError(f"features is {self.features!r}; expected {len(self.names)} widths, joined by '+'")

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in their order."""
        return tuple(self.modalities.split("+"))

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the modalities' vectors."""
        return tuple(int(width) if width.isdecimal() else -1 for width in self.features.split("+"))


class Head(nn.Module):
    """A logistic regression, or a network of one hidden layer, over standardized vectors.

    With a prior its logits are those of the prior, a linear function of the vectors, and what the layers add; before
    they learn, that is nothing. A missing modality, whose part of a vector is 0, counts as the mean of those that are
    there; beside several modalities the network reads which of them a product has.
    """

    mean: Tensor
    scale: Tensor
    prior: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = sum(config.widths)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        inputs = width + (len(config.widths) if len(config.widths) > 1 else 0)
        if config.hidden_dim:
            self.layers = nn.Sequential(
                nn.Linear(inputs, config.hidden_dim),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden_dim, config.outputs),
            )
        else:
            self.layers = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(inputs, config.outputs))
        if config.prior:
            self.register_buffer("prior", torch.zeros(config.outputs, width))
            for weights in self.layers[-1].parameters():
                nn.init.zeros_(weights)

    def forward(self, vectors: Tensor) -> Tensor:
        """Turn vectors, (batch, width), into logits (batch, N)."""
        units, present = unit_parts(vectors, self.config.widths)
        known = present.to(units.dtype)  # (batch, M)
        parts = ((units - self.mean) * self.scale).split(list(self.config.widths), 1)
        kept = [part * known[:, [at]] for at, part in enumerate(parts)]
        inputs = kept[0] if len(parts) == 1 else torch.cat([*kept, known], 1)  # (batch, width), or M more
        logits: Tensor = self.layers(inputs)
        return logits + units @ self.prior.T if self.config.prior else logits


def unit_parts(vectors: Tensor, widths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Scale the part of each modality to length 1.

    Args:
        vectors: (batch, width), 0 in the parts of modalities that a product does not have.
        widths: The width of each part.

    Returns:
        The vectors, (batch, width) float32, and which parts there are, (batch, M) bool.
    """
    parts = [normalize(part.float()) for part in vectors.split(list(widths), 1)]
    return torch.cat(parts, 1), torch.stack([part.any(1) for part in parts], 1)
