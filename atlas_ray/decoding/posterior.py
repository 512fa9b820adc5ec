"""What a search found: paths, their probabilities, and the mass outside the taxonomy."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from atlas_ray.decoding.tree import TrieTensors

LEAST = 1e-30
"""The probability of a leaf that nothing is left for: its logarithm has to be finite."""


@dataclass
class Posterior:
    """The best paths of each picture. K paths are kept."""

    leaf: Tensor
    """(batch, K) positions in the trie's leaves, best first; -1 past the end."""
    probability: Tensor
    """(batch, K) float32, normalized over the taxonomy; 0 past the end."""
    level_probability: Tensor
    """(batch, depth) the probability of each prefix of the best path; 0 past its end."""
    outside: Tensor
    """(batch,) the mass that the model put on paths outside the taxonomy."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return what was found of several batches as of one."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def finite(self) -> Tensor:
        """Which pictures have an answer, (batch,) bool: of one that has none a number is NaN or infinite."""
        numbers = torch.cat([self.probability, self.level_probability, self.outside[:, None]], 1)
        return numbers.isfinite().all(1) & (self.leaf[:, 0] >= 0)


def posterior(
    leaf: Tensor,
    log_mass: Tensor,
    tree: TrieTensors,
    *,
    top_k: int,
    temperature: float = 1.0,
    log_dropped: Tensor | None = None,
) -> Posterior:
    """Normalize what a search found.

    Args:
        leaf: (batch, found) leaves in increasing order, -1 if there is none, which come last; (1, found) if they are
            the same for all pictures.
        log_mass: (batch, found) log p(leaf | picture) as the model gives it; -inf for none.
        tree: The trie.
        top_k: How many paths to keep.
        temperature: The log-probabilities are divided by it before they are normalized.
        log_dropped: (batch,) log of the mass inside the taxonomy that is none of `leaf`; None for none.
    """
    log_inside = _inside(log_mass, log_dropped)
    outside = (1 - log_inside.exp()).clamp(min=0.0)
    if temperature != 1.0:
        log_mass = log_mass / temperature
        log_inside = _inside(log_mass, None if log_dropped is None else log_dropped / temperature)
    probability = (log_mass - log_inside[:, None]).exp()  # (batch, found)
    probability = probability.masked_fill(log_mass == float("-inf"), 0.0)
    # A stable sort over leaves in their order breaks ties by index.
    order = log_mass.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
    best_leaf, best = leaf.expand(len(order), -1).gather(1, order), probability.gather(1, order)
    found_ancestors = tree.ancestors[leaf.clamp(min=0)]  # (batch or 1, found, depth)
    path = tree.ancestors[best_leaf[:, 0]]  # (batch, depth)
    shared = (found_ancestors == path[:, None]) & (path[:, None] >= 0)  # (batch, found, depth)
    level_probability = (probability[:, :, None] * shared).sum(1).clamp(max=1.0)
    return Posterior(best_leaf, best, level_probability, outside)


def spread(found: Posterior, leaves: int) -> Tensor:
    """Return log p(leaf) of every leaf, (batch, leaves), normalized.

    The leaves that are not among the best share what is left evenly, but get no more than the least of the best.
    """
    known = found.leaf >= 0
    least = found.probability.masked_fill(~known, 1.0).amin(1)
    left = (1 - found.probability.sum(1)) / (leaves - known.sum(1)).clamp(min=1)  # (batch,)
    probability = left.minimum(least)[:, None].repeat(1, leaves + 1)
    probability.scatter_(1, found.leaf.masked_fill(~known, leaves), found.probability)
    return probability[:, :leaves].clamp(min=LEAST).log().log_softmax(1)


def _inside(log_mass: Tensor, log_dropped: Tensor | None) -> Tensor:
    found = log_mass.logsumexp(1)
    return found if log_dropped is None else found.logaddexp(log_dropped)
