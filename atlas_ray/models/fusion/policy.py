"""Late fusion, which makes one decision of those of the models of the picture, the title and the description.

The decisions are over leaf paths, of which exactly one is true, or over labels, any of which may be.

Dimensions: batch; M modalities; N outputs; features (of all modalities, joined).
"""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.modalities import MODALITIES
from atlas_ray.models.fusion import POLICIES, activation_setting
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy.labels import TARGETS

EPSILON = 1e-6
"""The distance that probabilities keep from 0 and 1 when their logarithm is taken."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig(Settings):
    """The shape of a policy; it is stored in the artifact."""

    modalities: str = setting("modalities that are fused, joined by '+': picture+title+description")
    outputs: int = setting("number of leaf paths, in the taxonomy's order, or of labels", low=1, high=10_000_000)
    policy: str = setting("policy that makes the decisions one", choices=POLICIES)
    target: str = setting("kind of the outputs", "path", choices=TARGETS)
    features: str = setting("widths of the modalities' features, if the policy joins them: 512+170+170", "")
    hidden_dim: int = setting("width of a network's first hidden layer", 200, low=1, high=65_536)
    second_dim: int = setting("width of a network's other hidden layers", 150, low=1, high=65_536)
    layers: int = setting("number of a network's hidden layers", 2, low=1, high=16)
    activation: str = activation_setting()
    dropout: float = setting("share of values dropped between the layers of an early fusion", 0.5, low=0, high=0.99)
    fallback: str = setting(
        "modalities joined by '+'; the answer for a product is that of the first of them that it has", ""
    )

    def __post_init__(self) -> None:
        """Refuse a shape that no policy can be built from."""
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
        """The widths of the modalities' features; () if they are not joined."""
        try:
            return tuple(int(width) for width in self.features.split("+")) if self.features else ()
        except ValueError:
            return (-1,)


class FusionNetwork(nn.Module, ABC):
    """A policy, which turns the scores of each modality into logits. A subclass implements `fuse`.

    The answer for a product with only one modality is that of its model; for a product with modalities of `fallback`
    it is that of the first of them.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:
        """Fuse products of two or more modalities; as `forward`."""

    def solve(self, rows: Iterable[tuple[Tensor, Tensor, Tensor]], penalty: float) -> None:
        """Fit a policy whose `fitting` is "solve", in one pass.

        Args:
            rows: Batches of scores and present, as in `forward`, and of the truth, (batch, N) 0 or 1.
            penalty: The weight of the squared weights.
        """
        raise NotImplementedError

    def forward(self, scores: Tensor, present: Tensor, features: Tensor | None = None) -> Tensor:
        """Fuse the scores of a batch.

        Args:
            scores: (batch, M, N) float32: log-probabilities of the paths, or log-odds of the labels; those of a
                missing modality are ignored.
            present: (batch, M) bool: which modalities a product has; at least one.
            features: (batch, features), 0 for a missing modality; only for a policy that joins them.

        Returns:
            (batch, N) logits: for paths, their softmax is the fused posterior; for labels, their sigmoid is the
            probability of each.
        """
        alone = present.sum(1) == 1
        only = scores.masked_fill(~present[:, :, None], 0.0).sum(1)  # the scores of a modality that is alone
        fused = torch.where(alone[:, None], only, self.fuse(scores, present, features))
        for name in reversed(self.config.preferred):
            at = self.config.names.index(name)
            fused = torch.where(present[:, at, None], scores[:, at], fused)
        return fused

    def probabilities(self, scores: Tensor) -> Tensor:
        """Turn scores into probabilities of the same shape."""
        return scores.sigmoid() if self.config.target == "labels" else scores.exp()

    def inputs(self, scores: Tensor, present: Tensor) -> Tensor:
        """Join probabilities, 0 for missing modalities, and the flags of present ones: (batch, M x N + M)."""
        probabilities = self.probabilities(scores).masked_fill(~present[:, :, None], 0.0)  # (batch, M, N)
        return torch.cat([probabilities.flatten(1), present.to(probabilities.dtype)], 1)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Turn probabilities, which may be a little below 0 or above 1, into the logits of `forward`."""
        if self.config.target == "labels":
            return probabilities.logit(eps=EPSILON)
        return probabilities.clamp(min=EPSILON).log()


def build_fusion(config: FusionConfig) -> FusionNetwork:
    """Build the network of a configuration's policy."""
    return policy_class(config.policy)(config)


def policy_class(name: str) -> type[FusionNetwork]:
    """Return the class of a policy of `POLICIES`."""
    network: type[FusionNetwork] = pkgutil.resolve_name(POLICIES[name].network)
    return network
