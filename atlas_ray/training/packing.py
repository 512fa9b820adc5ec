"""The outputs of several models about a product, packed into the rows that a policy learns from.

Dimensions: batch; M modalities; N leaves or labels.
"""

import torch
from torch import Tensor

from atlas_ray.models.fusion.policy import FusionConfig


def packed_width(config: FusionConfig) -> int:
    """Return how many numbers a packed row has."""
    modalities = len(config.names)
    return modalities * config.outputs + sum(config.widths) + modalities


def pack_outputs(scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:
    """Pack what `FusedInference.policy_inputs` returns, (batch, ...), into one row for each product."""
    rows = [scores.flatten(1), present.to(scores.dtype)]
    return torch.cat(rows if features is None else [rows[0], features, rows[1]], 1)


def unpack_outputs(rows: Tensor, config: FusionConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores (batch, M, N), features (batch, features) and present (batch, M) of packed rows."""
    modalities = len(config.names)
    scores, features, present = rows.split([modalities * config.outputs, sum(config.widths), modalities], 1)
    return scores.view(len(rows), modalities, config.outputs), features, present > 0
