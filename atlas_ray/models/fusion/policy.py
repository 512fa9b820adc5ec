"""Late fusion: the decisions of models of the picture, the title and the description made into one.

What is fused are decisions over the leaf paths, of which one is true, or over labels, each of which may be.

Dimensions: batch; M modalities; N outputs; features (of all modalities, joined).
"""

import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.modalities import MODALITIES
from atlas_ray.models.fusion import POLICIES
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy.labels import TARGETS

LEAST = 1e-6
"""What a probability of 0 is taken as, where its logarithm is needed; and 1 as so much less."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig(Settings):
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
        super().__post_init__()
        if any(name not in MODALITIES for name in self.names) or len(set(self.names)) != len(self.names):
            raise ConfigError(f"modalities is {self.modalities!r}; expected some of {'+'.join(MODALITIES)}, each once")
        wanted = len(self.names) if POLICIES[self.policy].joins_features else 0
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


class FusionNetwork(nn.Module):
    """A policy: what each modality says of a product to logits. A subclass says how, with `fuse`.

    Where a product has one modality alone, its model's answer is taken as it is, and so is that of the first modality
    of `fallback` that it has.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def check(cls, config: FusionConfig) -> None:
        """Refuse a shape that cannot be fitted, before the models are asked.

        Raises:
            ConfigError: saying why.
        """

    def fuse(self, said: Tensor, there: Tensor, features: Tensor | None) -> Tensor:
        """Fuse products of two or more modalities; as `forward`."""
        raise NotImplementedError

    def solve(self, rows: Iterable[tuple[Tensor, Tensor, Tensor]], penalty: float) -> None:
        """Fit a policy whose `fitting` is "solve", in one pass.

        Args:
            rows: Batches of said and there, as in `forward`, and of the truth, (batch, N) 0 or 1.
            penalty: Of the squared weights.
        """
        raise NotImplementedError

    def forward(self, said: Tensor, there: Tensor, features: Tensor | None = None) -> Tensor:
        """Fuse.

        Args:
            said: (batch, M, N) float32: log-probabilities of the paths, or log-odds of the labels;
                anything where a modality is missing.
            there: (batch, M) bool: which modalities a product has; at least one.
            features: (batch, features), 0 where a modality is missing; of a policy that joins them alone.

        Returns:
            (batch, N) logits: of paths, their softmax is the fused posterior; of labels, their sigmoid
            is each one's probability.
        """
        alone = there.sum(1) == 1
        own = said.masked_fill(~there[:, :, None], 0.0).sum(1)  # of one modality alone: its own
        fused = torch.where(alone[:, None], own, self.fuse(said, there, features))
        for name in reversed(self.config.preferred):
            at = self.config.names.index(name)
            fused = torch.where(there[:, at, None], said[:, at], fused)
        return fused

    def probabilities(self, said: Tensor) -> Tensor:
        """Return the probabilities that modalities gave, of the same shape."""
        return said.sigmoid() if self.config.target == "labels" else said.exp()

    def inputs(self, said: Tensor, there: Tensor) -> Tensor:
        """Join probabilities, 0 where a modality is missing, and which are there: (batch, M x N + M)."""
        probabilities = self.probabilities(said).masked_fill(~there[:, :, None], 0.0)  # (batch, M, N)
        return torch.cat([probabilities.flatten(1), there.to(probabilities.dtype)], 1)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Return what `forward` does, of probabilities, which need not keep to their range."""
        if self.config.target == "labels":
            return probabilities.logit(eps=LEAST)
        return probabilities.clamp(min=LEAST).log()


def build_fusion(config: FusionConfig) -> FusionNetwork:
    """Build the network of a configuration's policy."""
    return policy_class(config.policy)(config)


def policy_class(name: str) -> type[FusionNetwork]:
    """Return the class of a policy of `POLICIES`."""
    found: type[FusionNetwork] = pkgutil.resolve_name(POLICIES[name].network)
    return found
