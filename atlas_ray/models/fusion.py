"""Late fusion: the decisions of models of the picture, the title and the description made into one.

The policies are those of Wirojwatanakul and Wangperawong (2019): max, mean, ridge
regression and networks; `early` joins the models' features instead, the question that they leave
open; `weighted` is a weighted sum of log-probabilities, with weights for each set of modalities that
a product may have. What is fused are decisions over the leaf paths, of which one is true, or over
labels, each of which may be.

Dimensions: batch; M modalities; N outputs; features (of all modalities, joined).
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.settings import MODALITIES, POLICIES, TARGETS, check_settings, setting

LEAST = 1e-6
"""What a probability of 0 is taken as, where its logarithm is needed; and 1 as so much less."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """The shape of a policy; it is stored in the artifact."""

    modalities: str = setting("what is fused, joined by '+': picture+title+description")
    outputs: int = setting("leaf paths, in the taxonomy's order, or labels", low=1, high=10_000_000)
    policy: str = setting("how the decisions become one", choices=POLICIES)
    target: str = setting("what the outputs are", "path", choices=TARGETS)
    features: str = setting("widths of the modalities' features, where they are joined early: 512+170+170", "")
    hidden_dim: int = setting("width of a network's first layer", 200, low=1, high=65_536)
    second_dim: int = setting("width of a network's second layer", 150, low=1, high=65_536)
    dropout: float = setting("of what an early fusion joins", 0.5, low=0, high=0.99)
    fallback: str = setting(
        "the modalities whose own answer is taken where they are there, first come, joined by '+'", ""
    )

    def __post_init__(self) -> None:
        """Refuse what no policy can be built from."""
        check_settings(self)
        if any(name not in MODALITIES for name in self.names) or len(set(self.names)) != len(self.names):
            raise ConfigError(f"modalities is {self.modalities!r}; expected some of {'+'.join(MODALITIES)}, each once")
        wanted = len(self.names) if self.policy == "early" else 0
        if any(name not in self.names for name in self.preferred) or len(set(self.preferred)) != len(self.preferred):
            raise ConfigError(f"fallback is {self.fallback!r}; expected some of {self.modalities}, each once")
        if len(self.widths) != wanted or not all(0 < width <= 100_000 for width in self.widths):
            raise ConfigError(f"features is {self.features!r}; expected {wanted} widths, joined by '+'")

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in their order."""
        return tuple(self.modalities.split("+"))

    @property
    def preferred(self) -> tuple[str, ...]:
        """The modalities of `fallback`, in their order."""
        return tuple(self.fallback.split("+")) if self.fallback else ()

    @property
    def widths(self) -> tuple[int, ...]:
        """How wide each modality's features are; () where they are not joined."""
        try:
            return tuple(int(width) for width in self.features.split("+")) if self.features else ()
        except ValueError:
            return (-1,)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


class FusionNetwork(nn.Module):
    """A policy: what each modality says of a product to logits.

    Where a product has one modality alone, its model's answer is taken as it is, and so is that of the first modality
    of `fallback` that it has.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        count, outputs = len(config.names), config.outputs
        if config.policy == "weighted":
            # One row for each set of modalities, as bits.
            self.weights = nn.Parameter(torch.ones(2**count, count))
        elif config.policy == "ridge":
            self.ridge = nn.Linear(count * outputs + count, outputs)
        elif config.policy == "network":
            inner = nn.Sigmoid() if count < 3 else nn.Tanh()
            self.network = nn.Sequential(
                nn.Linear(count * outputs + count, config.hidden_dim),
                nn.Sigmoid(),
                nn.Linear(config.hidden_dim, config.second_dim),
                inner,
                nn.Linear(config.second_dim, outputs),
            )
        elif config.policy == "early":
            self.network = nn.Sequential(
                nn.Linear(sum(config.widths) + count, config.hidden_dim),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden_dim, outputs),
            )

    def forward(self, said: Tensor, there: Tensor, features: Tensor | None = None) -> Tensor:
        """Fuse.

        Args:
            said: (batch, M, N) float32: log-probabilities of the paths, or log-odds of the labels;
                anything where a modality is missing.
            there: (batch, M) bool: which modalities a product has; at least one.
            features: (batch, features), 0 where a modality is missing; for `early` alone.

        Returns:
            (batch, N) logits: of paths, their softmax is the fused posterior; of labels, their sigmoid
            is each one's probability.
        """
        alone = there.sum(1) == 1
        own = said.masked_fill(~there[:, :, None], 0.0).sum(1)  # of one modality alone: its own
        fused = torch.where(alone[:, None], own, self._together(said, there, features))
        for name in reversed(self.config.preferred):
            at = self.config.names.index(name)
            fused = torch.where(there[:, at, None], said[:, at], fused)
        return fused

    def probabilities(self, said: Tensor) -> Tensor:
        """Return the probabilities that modalities gave, of the same shape."""
        return said.sigmoid() if self.config.target == "labels" else said.exp()

    def _together(self, said: Tensor, there: Tensor, features: Tensor | None) -> Tensor:
        policy, mask = self.config.policy, there[:, :, None]
        if policy == "max":
            return said.masked_fill(~mask, float("-inf")).amax(1)
        if policy == "mean" and self.config.target == "path":
            return said.masked_fill(~mask, float("-inf")).logsumexp(1)
        if policy == "weighted":
            bits = 2 ** torch.arange(there.shape[1], device=there.device)
            weights = self.weights[(there * bits).sum(1)] * there  # (batch, M)
            return (said.masked_fill(~mask, 0.0) * weights[:, :, None]).sum(1)
        if policy == "early":
            assert features is not None
            fused: Tensor = self.network(torch.cat([features, there.to(features.dtype)], 1))
            return fused
        probabilities = self.probabilities(said).masked_fill(~mask, 0.0)  # (batch, M, N)
        if policy == "mean":
            return self._logits(probabilities.sum(1) / there.sum(1, keepdim=True))
        inputs = torch.cat([probabilities.flatten(1), there.to(probabilities.dtype)], 1)
        if policy == "ridge":
            return self._logits(self.ridge(inputs))
        logits: Tensor = self.network(inputs)
        return logits

    def _logits(self, probabilities: Tensor) -> Tensor:
        """Return what `forward` does, of probabilities, which need not keep to their range."""
        if self.config.target == "labels":
            return probabilities.logit(eps=LEAST)
        return probabilities.clamp(min=LEAST).log()
