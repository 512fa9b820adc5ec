"""Fusion policies by name, which make one decision of several models' decisions. Importing this imports no torch.

How to add one: `docs/extending/fusion-policy.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from atlas_ray.settings import Range


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The description of a policy: its network, and how that is fitted and judged."""

    network: str
    """`module:class` of a subclass of `FusionNetwork`."""
    fitting: Literal["nothing", "solve", "descent"] = "nothing"
    """How it is fitted: not at all, by `FusionNetwork.solve` in one pass, or in epochs of gradient descent."""
    memorizes: bool = False
    """Whether it has enough parameters to memorize its fitting split; it is calibrated and judged on another one."""
    joins_features: bool = False
    """Whether it reads the models' features."""
    search_space: Mapping[str, Range] = field(default_factory=dict)
    """The settings of `train fusion` that `tune` searches; {} if there is nothing to search."""


NETWORK_SPACE = {
    "hidden_dim": Range(32, 512, log=True),
    "second_dim": Range(32, 512, log=True),
    "modality_dropout": Range(0.0, 0.6),
    "decoder_lr": Range(3e-4, 3e-2, log=True),
    "weight_decay": Range(1e-5, 0.3, log=True),
}
"""The search space of policies that are networks: their shape, and how they learn."""

POLICIES: dict[str, Policy] = {
    "max": Policy(network="atlas_ray.models.fusion.max:Max"),
    "mean": Policy(network="atlas_ray.models.fusion.mean:Mean"),
    "ridge": Policy(network="atlas_ray.models.fusion.ridge:Ridge", fitting="solve", memorizes=True),
    "network": Policy(
        network="atlas_ray.models.fusion.network:Network", fitting="descent", memorizes=True, search_space=NETWORK_SPACE
    ),
    "weighted": Policy(
        network="atlas_ray.models.fusion.weighted:Weighted", fitting="descent", search_space=NETWORK_SPACE
    ),
    "early": Policy(
        network="atlas_ray.models.fusion.early:Early", fitting="descent", memorizes=True, joins_features=True,
        search_space=NETWORK_SPACE,
    ),
}  # fmt: skip
