"""Whether a policy beats the models that it fuses; where it does not, a model's own answer is kept.

Dimensions: products; M modalities.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atlas_ray.metrics.paired import sign_test
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.training.opinions import unpack_opinions

LEVEL = 0.1
"""A policy beats a model where it would win as often by chance with less than this probability."""


@dataclass(frozen=True)
class Contest:
    """A policy against a model, on the products of two or more modalities of which the model's is one."""

    model: str
    """Its modality."""
    products: int
    model_right: float
    """Share that the model has right; of labels, with no label wrong."""
    policy_right: float
    won: int
    """Products of which the policy has less wrong than the model."""
    lost: int
    """Products of which it has more wrong."""
    chance: float
    """How likely it is to win as often by chance (sign test, one-sided)."""
    kept: bool
    """Whether the model's answer is kept."""


def contests(
    network: FusionNetwork, batches: Iterable[dict[str, Any]], has: torch.Tensor | None, *, held_out: bool
) -> list[Contest]:
    """Hold a policy against each model, the best one first, on products that no better model has a say on.

    Args:
        network: The policy.
        batches: Rows of `inputs` and `label`.
        has: Which labels each leaf has, (leaves, labels) bool; None where leaves are the outputs.
        held_out: Whether the policy did not learn from these products. Where it did, and knows them, it proves nothing
            on them, and the models' answers are kept.

    Returns:
        One for each model that still had products to judge by.
    """
    policy, models, there = _wrong(network, batches, has)
    several = there.sum(1) >= 2  # of one modality alone the policy answers as its model does
    means = [float(models[there[:, at], at].mean()) if there[:, at].any() else np.inf for at in range(there.shape[1])]
    found = []
    for at in np.argsort(means, kind="stable").tolist():
        rows = several & there[:, at]
        if not rows.any():
            continue
        several &= ~there[:, at]
        won, lost = (int((a[rows] < b[rows]).sum()) for a, b in ((policy, models[:, at]), (models[:, at], policy)))
        chance = sign_test(won, lost)
        found.append(
            Contest(
                network.config.names[at],
                int(rows.sum()),
                float((models[rows, at] == 0).mean()),
                float((policy[rows] == 0).mean()),
                won,
                lost,
                chance,
                chance >= LEVEL or not held_out,
            )
        )
    return found


@torch.inference_mode()
def _wrong(
    network: FusionNetwork, batches: Iterable[dict[str, Any]], has: torch.Tensor | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return how much is wrong of the policy (products,) and of each model, and which are there (products, M)."""
    network.eval()
    modalities = len(network.config.names)
    parts = [(np.zeros(0, np.int64), np.zeros((0, modalities), np.int64), np.zeros((0, modalities), bool))]
    for batch in batches:
        said, features, there = unpack_opinions(torch.tensor(batch["inputs"]), network.config)
        answers = torch.cat([network(said, there, features)[:, None], said], 1)  # (batch, 1 + M, N)
        label = torch.tensor(batch["label"])
        if has is None:
            wrong = (answers.argmax(2) != label[:, None]).long()
        else:
            wrong = ((answers > 0) != has[label][:, None]).sum(2)
        parts.append((wrong[:, 0].numpy(), wrong[:, 1:].numpy(), there.numpy()))
    policy, models, present = (np.concatenate(column) for column in zip(*parts, strict=True))
    return policy, models, present
