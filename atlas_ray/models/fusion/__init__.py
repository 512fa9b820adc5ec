"""Fusion policies by name, which make one decision of several models' decisions. Importing this imports no torch.

How to add one: `docs/extending/fusion-policy.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from atlas_ray.settings import Domain, Range, setting


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
    search_space: Mapping[str, Domain] = field(default_factory=dict)
    """The settings of `train fusion` that `tune` searches; {} if there is nothing to search."""


ACTIVATIONS: dict[str, tuple[str, str]] = {
    "mixed": ("Sigmoid", "Tanh"),
    "sigmoid": ("Sigmoid", "Sigmoid"),
    "tanh": ("Tanh", "Tanh"),
    "relu": ("ReLU", "ReLU"),
}
"""The activations of a network policy by name, classes of `torch.nn`: that of its hidden layers, and of the last one
if three models are fused. The late-fusion paper's are `mixed`."""


def activation_setting() -> Any:
    """Define the field of a network policy's activation."""
    return setting(
        "activation of a network policy's hidden layers; mixed: sigmoid, and tanh in the last one of three models",
        "mixed",
        choices=ACTIVATIONS,
    )


LEARNING_SPACE: dict[str, Domain] = {
    "modality_dropout": Range(0.0, 0.6),
    "decoder_lr": Range(3e-4, 3e-2, log=True),
    "weight_decay": Range(1e-5, 0.3, log=True),
}
"""The search space of all policies that learn by gradient descent."""
NETWORK_SPACE: dict[str, Domain] = {
    "layers": Range(1, 3),
    "hidden_dim": Range(32, 512, log=True),
    "second_dim": Range(32, 512, log=True),
    "activation": tuple(ACTIVATIONS),
    **LEARNING_SPACE,
}
"""The search space of the policy `network`: its shape, and how it learns."""
EARLY_SPACE: dict[str, Domain] = {"hidden_dim": Range(32, 512, log=True), "dropout": Range(0.0, 0.7), **LEARNING_SPACE}
"""The search space of the policy `early`."""

POLICIES: dict[str, Policy] = {
    "max": Policy(network="atlas_ray.models.fusion.max:Max"),
    "mean": Policy(network="atlas_ray.models.fusion.mean:Mean"),
    "ridge": Policy(network="atlas_ray.models.fusion.ridge:Ridge", fitting="solve", memorizes=True),
    "network": Policy(
        network="atlas_ray.models.fusion.network:Network", fitting="descent", memorizes=True, search_space=NETWORK_SPACE
    ),
    "weighted": Policy(
        network="atlas_ray.models.fusion.weighted:Weighted", fitting="descent", search_space=LEARNING_SPACE
    ),
    "early": Policy(
        network="atlas_ray.models.fusion.early:Early", fitting="descent", memorizes=True, joins_features=True,
        search_space=EARLY_SPACE,
    ),
}  # fmt: skip
