"""The outputs of several models about a product, packed into the rows that a policy learns from.

Of many outputs only the largest are kept, so that a row does not grow with the taxonomy: the others count as their
mean.

Dimensions: batch; M modalities; N leaves or labels; K of them that are kept.
"""

import torch
from torch import Tensor

from atlas_ray.models.fusion.policy import FusionConfig

KEPT = 512
"""K, the most outputs of a model that a row has."""


def packed_width(config: FusionConfig) -> int:
    """Return how many numbers a packed row has."""
    return len(config.names) * (_scores_width(config.outputs) + 1) + sum(config.widths)


def _scores_width(outputs: int) -> int:
    """Return how many numbers stand for a model's scores: all, or K, their positions and the mean of the others."""
    return outputs if outputs <= KEPT else 2 * KEPT + 1


def pack_outputs(scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:
    """Pack what `FusedInference.policy_inputs` returns, (batch, ...), into one row for each product."""
    outputs = scores.shape[2]
    if outputs > KEPT:
        largest, position = scores.topk(KEPT, dim=2)
        others = (scores.sum(2, keepdim=True) - largest.sum(2, keepdim=True)) / (outputs - KEPT)
        scores = torch.cat([largest, position.to(scores.dtype), others], 2)  # float32 holds each whole number to 2^24
    rows = [scores.flatten(1), present.to(scores.dtype)]
    return torch.cat(rows if features is None else [rows[0], features, rows[1]], 1)


def unpack_outputs(rows: Tensor, config: FusionConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores (batch, M, N), features (batch, features) and present (batch, M) of packed rows."""
    modalities, width = len(config.names), _scores_width(config.outputs)
    packed, features, present = rows.split([modalities * width, sum(config.widths), modalities], 1)
    scores = packed.view(len(rows), modalities, width)
    if config.outputs > KEPT:
        largest, position, others = scores.split([KEPT, KEPT, 1], 2)
        scores = others.expand(-1, -1, config.outputs).scatter(2, position.long(), largest)
    return scores, features, present > 0
