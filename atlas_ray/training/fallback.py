"""Comparison of a policy with the models that it fuses. A model that it does not beat keeps its answers.

Dimensions: products; M modalities.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atlas_ray.arrays import Array
from atlas_ray.metrics.paired import sign_test
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.prediction.aggregate import is_below
from atlas_ray.training.packing import unpack_outputs

LEVEL = 0.1
"""The significance level: a policy beats a model if it would win as often by chance with a lower probability."""


@dataclass(frozen=True)
class Contest:
    """A comparison of a policy with a model, on products with the model's modality and at least one other."""

    model: str
    """The model's modality."""
    products: int
    model_right: float
    """Share of products that the model has right; for labels, without a wrong one."""
    policy_right: float
    won: int
    """Products for which the policy has fewer errors than the model."""
    lost: int
    """Products for which it has more errors."""
    chance: float
    """Probability to win as often by chance (sign test, one-sided)."""
    kept: bool
    """Whether the model's answer is kept."""


def contests(
    network: FusionNetwork, batches: Iterable[dict[str, Any]], *, held_out: bool, nodes: Array | None = None
) -> list[Contest]:
    """Compare a policy with each model, the best model first, on products that no better model answers.

    Args:
        network: The policy.
        batches: Batches with `inputs` and `label`.
        held_out: Whether the policy did not learn from these products. If it did, and may have memorized them, they
            prove nothing, and the models' answers are kept.
        nodes: `label_nodes` of the taxonomy, for products that are labelled above the leaf; None without any.

    Returns:
        A comparison for each model that had products left to be compared on.
    """
    policy, models, present = _errors(network, batches, nodes)
    several = present.sum(1) >= 2  # with one modality, the policy answers as its model does
    means = [float(models[rows, at].mean()) if rows.any() else np.inf for at, rows in enumerate(present.T)]
    compared = []
    for at in np.argsort(means, kind="stable").tolist():
        rows = several & present[:, at]
        if not rows.any():
            continue
        several &= ~present[:, at]
        won, lost = (int((a[rows] < b[rows]).sum()) for a, b in ((policy, models[:, at]), (models[:, at], policy)))
        chance = sign_test(won, lost)
        compared.append(
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
    return compared


@torch.inference_mode()
def _errors(
    network: FusionNetwork, batches: Iterable[dict[str, Any]], nodes: Array | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the errors of the policy (products,), those of each model and the present models, (products, M) each."""
    network.eval()
    modalities = len(network.config.names)
    parts = [(np.zeros(0, np.int64), np.zeros((0, modalities), np.int64), np.zeros((0, modalities), bool))]
    for batch in batches:
        scores, features, present = unpack_outputs(torch.tensor(batch["inputs"]), network.config)
        answers = torch.cat([network(scores, present, features)[:, None], scores], 1)  # (batch, 1 + M, N)
        label = batch["label"][:, None]
        if network.config.target == "labels":
            errors = ((answers > 0).numpy() != label).sum(2)
        else:
            best = answers.argmax(2).numpy()
            errors = (best != label if nodes is None else ~is_below(nodes, best, label)).astype(np.int64)
        parts.append((errors[:, 0], errors[:, 1:], present.numpy()))
    policy, models, have = (np.concatenate(column) for column in zip(*parts, strict=True))
    return policy, models, have
