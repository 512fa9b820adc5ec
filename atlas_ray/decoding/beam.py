"""Beam search that can only produce paths of the taxonomy."""

import torch

from atlas_ray.decoding.posterior import Posterior, posterior
from atlas_ray.decoding.step import StepFunction
from atlas_ray.decoding.tree import TrieTensors

NEG_INF = float("-inf")


def beam_search(
    step: StepFunction, tree: TrieTensors, *, width: int = 5, top_k: int = 5, temperature: float = 1.0
) -> Posterior:
    """Keep the `width` best prefixes of each picture, level by level, masked before the top-k.

    A path that ends keeps its place in the beam with its score. Ties go to the lower index.
    The mass inside the taxonomy is taken as that of the paths found and of the prefixes dropped.
    With a beam as wide as the tree this is `exact_search`; with a narrower one the mass outside is
    a lower bound, and so are the probabilities.

    Args:
        step: The decoder over a batch of pictures.
        tree: The taxonomy.
        width: Prefixes kept a picture.
        top_k: How many paths to return, at most `width`.
        temperature: As in `posterior`.
    """
    batch, device = step.batch, step.device
    state = step.start()
    node = torch.zeros(batch, 1, dtype=torch.int64, device=device)  # (batch, beams); -1: no prefix
    score = torch.zeros(batch, 1, device=device)  # (batch, beams) log p(prefix)
    done_node, done_score = node[:, :0], score[:, :0]  # (batch, done) paths that have ended
    dropped = torch.full((batch,), NEG_INF, device=device)  # log of the mass that the beam let go
    for _ in range(tree.trie.depth):
        log_p, state = step(tree.token[node.clamp(min=0)], state)  # (batch, beams, vocabulary)
        child = tree.children[node.clamp(min=0)].masked_fill(node[:, :, None] < 0, -1)
        gain = log_p.gather(2, tree.token[child.clamp(min=0)])  # (batch, beams, children)
        if step.normalized_by_taxonomy:
            gain = gain.masked_fill(child < 0, NEG_INF).log_softmax(2)
        child_score = (score[:, :, None] + gain).masked_fill(child < 0, NEG_INF).flatten(1)
        # Ended paths and new children compete; ended ones stand first, so that they win ties.
        all_score = torch.cat([done_score, child_score], 1)
        all_node = torch.cat([done_node, child.flatten(1)], 1)
        ranked = all_score.sort(dim=1, descending=True, stable=True)
        dropped = dropped.logaddexp(ranked.values[:, width:].logsumexp(1))
        kept_score, index = ranked.values[:, :width], ranked.indices[:, :width]
        kept_node = all_node.gather(1, index).masked_fill(kept_score == NEG_INF, -1)
        beam = (index - done_node.shape[1]).clamp(min=0) // child.shape[2]  # where each came from
        ended = (kept_node >= 0) & (tree.leaf[kept_node.clamp(min=0)] >= 0)
        going = (kept_node >= 0) & ~ended
        done_node = kept_node.masked_fill(~ended, -1)
        done_score = kept_score.masked_fill(~ended, NEG_INF)
        # Prefixes that go on move to the front, in their order; the beam shrinks to the most of them.
        beams = widest(going)
        if beams == 0:
            break
        order = going.int().sort(dim=1, descending=True, stable=True).indices[:, :beams]
        node = kept_node.masked_fill(~going, -1).gather(1, order)
        score = kept_score.masked_fill(~going, NEG_INF).gather(1, order)
        state = tuple(select(part, beam.gather(1, order)) for part in state)
    last = len(tree.trie.leaves)
    leaf = torch.where(done_node >= 0, tree.leaf[done_node.clamp(min=0)], last)
    leaf, order = leaf.sort(dim=1)
    leaf = leaf.masked_fill(leaf == last, -1)
    found = done_score.gather(1, order)
    return posterior(leaf, found, tree, top_k=top_k, temperature=temperature, log_dropped=dropped)


def widest(going: torch.Tensor) -> int:
    """Return how many prefixes of a picture go on at most, given which do, (batch, beams) bool.

    On a GPU that is said to be all of them: to count them, the host would wait for the device at each level.
    """
    return int(going.sum(1).max()) if going.device.type == "cpu" else going.shape[1]


def select(part: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Select hypotheses: (batch, beams, ...) by (batch, kept)."""
    index = source.reshape(*source.shape, *[1] * (part.dim() - 2)).expand(*source.shape, *part.shape[2:])
    return part.gather(1, index)
