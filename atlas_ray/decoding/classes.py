"""A classifier's logits as a posterior over the taxonomy."""

import torch
from torch import Tensor

from atlas_ray.decoding.posterior import Posterior, posterior
from atlas_ray.decoding.tree import TrieTensors


def classes_search(
    logits: Tensor, classes: Tensor, tree: TrieTensors, *, top_k: int = 5, temperature: float = 1.0
) -> Posterior:
    """Take the probabilities of a classifier's classes as those of the taxonomy's leaves.

    Args:
        logits: (batch, classes).
        classes: (leaves,) the class of each leaf of the taxonomy; classes of no leaf are outside.
        tree: The taxonomy.
        top_k: How many paths to keep.
        temperature: As in `posterior`.
    """
    log_mass = logits.log_softmax(-1, dtype=torch.float32)[:, classes]
    leaves = torch.arange(len(classes), device=logits.device)
    return posterior(leaves[None], log_mass, tree, top_k=top_k, temperature=temperature)
