"""The answers of several models about a product, as rows that a policy learns from.

Dimensions: batch; modalities; outputs (leaves or labels).
"""

import torch
from torch import Tensor

from atlas_ray.models.fusion.policy import FusionConfig


def opinion_width(config: FusionConfig) -> int:
    """Return how many numbers one product's opinions are."""
    modalities = len(config.names)
    return modalities * config.outputs + sum(config.widths) + modalities


def pack_opinions(log_p: Tensor, there: Tensor, features: Tensor | None) -> Tensor:
    """Join what `FusedInference.opinions` returns, (batch, ...), into one row a product."""
    rows = [log_p.flatten(1), there.to(log_p.dtype)]
    return torch.cat(rows if features is None else [rows[0], features, rows[1]], 1)


def unpack_opinions(rows: Tensor, config: FusionConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return log_p (batch, M, N), features (batch, features) and there (batch, M) of packed rows."""
    modalities = len(config.names)
    log_p, features, there = rows.split([modalities * config.outputs, sum(config.widths), modalities], 1)
    return log_p.view(len(rows), modalities, config.outputs), features, there > 0
