"""Exact search: the probability of every path of the taxonomy."""

import torch
from torch import Tensor

from atlas_ray.decoding.posterior import Posterior, posterior
from atlas_ray.decoding.step import StepFunction
from atlas_ray.decoding.tree import TrieTensors


def exact_search(
    step: StepFunction,
    tree: TrieTensors,
    *,
    width: int = 5,  # noqa: ARG001
    top_k: int = 5,
    temperature: float = 1.0,
) -> Posterior:
    """Walk the trie level by level, expanding each inner node once for the whole batch.

    The cost is one step of the decoder a picture and inner node: 9 for the 52 Atlas paths.

    Args:
        step: The decoder over a batch of pictures.
        tree: The taxonomy.
        width: Without effect: no prefix is dropped.
        top_k: How many paths to keep.
        temperature: As in `posterior`.

    Returns:
        The true posterior over the taxonomy's leaves, its best `top_k`.
    """
    log_mass = exact_log_mass(step, tree)
    leaves = torch.arange(len(tree.trie.leaves), device=step.device)
    return posterior(leaves[None], log_mass, tree, top_k=top_k, temperature=temperature)


def exact_log_mass(step: StepFunction, tree: TrieTensors) -> Tensor:
    """Return log p(leaf | picture) as the decoder gives it, (batch, leaves); what is outside is not in it."""
    state = step.start()
    mass = torch.zeros(step.batch, len(tree.token), device=step.device)  # log p(prefix), (batch, nodes)
    for inner, source, below, parent in tree.levels:
        before = tuple(part[:, source] for part in state)  # (batch, inner, ...)
        log_p, state = step(tree.token[inner].expand(step.batch, -1), before)
        chosen = log_p[:, parent, tree.token[below]]  # (batch, below)
        if step.normalized_by_taxonomy:
            chosen = chosen - _log_sum_by(parent, chosen, len(inner))[:, parent]
        mass[:, below] = mass[:, inner][:, parent] + chosen
    return mass[:, tree.leaf_node]


def _log_sum_by(parent: Tensor, values: Tensor, count: int) -> Tensor:
    """Add up exp(values), (batch, children), for each of `count` parents; its log, (batch, count)."""
    where = parent.expand_as(values)
    highest = values.new_full((len(values), count), float("-inf")).scatter_reduce(1, where, values, "amax")
    total = torch.zeros_like(highest).scatter_add(1, where, (values - highest.gather(1, where)).exp())
    return highest + total.log()
