"""Exact search: the probability of every path of the taxonomy."""

import torch
from torch import Tensor

from atlas_ray.decoding.posterior import Posterior, posterior
from atlas_ray.decoding.step import State, StepFunction
from atlas_ray.decoding.tree import TrieTensors

MAX_HYPOTHESES = 2**14
"""Prefixes, over all pictures of a batch, that the decoder takes at once. The attention of an LSTM of the paper's size
keeps 81 x 512 numbers for each: 1.3 GiB together in bfloat16."""


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
        log_p, state = _in_parts(step, tree.token[inner], before)
        chosen = log_p[:, parent, tree.token[below]]  # (batch, below)
        if step.normalized_by_taxonomy:
            chosen = chosen - _log_sum_by(parent, chosen, len(inner))[:, parent]
        mass[:, below] = mass[:, inner][:, parent] + chosen
    return mass[:, tree.leaf_node]


def _in_parts(step: StepFunction, tokens: Tensor, before: State) -> tuple[Tensor, State]:
    """Append a token to each of the nodes of a level, (inner,), with so many of them at once as memory allows."""
    most = max(MAX_HYPOTHESES // max(step.batch, 1), 1)
    found = [
        step(some.expand(step.batch, -1), tuple(states))
        for some, *states in zip(tokens.split(most), *(part.split(most, 1) for part in before), strict=True)
    ]
    if len(found) == 1:
        return found[0]
    log_p, states = zip(*found, strict=True)
    return torch.cat(log_p, 1), tuple(torch.cat(parts, 1) for parts in zip(*states, strict=True))


def _log_sum_by(parent: Tensor, values: Tensor, count: int) -> Tensor:
    """Add up exp(values), (batch, children), for each of `count` parents; its log, (batch, count)."""
    where = parent.expand_as(values)
    highest = values.new_full((len(values), count), float("-inf")).scatter_reduce(1, where, values, "amax")
    total = torch.zeros_like(highest).scatter_add(1, where, (values - highest.gather(1, where)).exp())
    return highest + total.log()
