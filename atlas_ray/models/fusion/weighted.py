"""A weighted sum of log-probabilities, with separate weights for each set of modalities that a product may have."""

import torch
from torch import Tensor, nn

from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork


class Weighted(FusionNetwork):
    """The policy `weighted`."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        count = len(config.names)
        self.weights = nn.Parameter(torch.ones(2**count, count))  # a row for each set of modalities, as bits

    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Take the weighted sum."""
        bits = 2 ** torch.arange(present.shape[1], device=present.device)
        weights = self.weights[(present * bits).sum(1)] * present  # (batch, M)
        return (scores.masked_fill(~present[:, :, None], 0.0) * weights[:, :, None]).sum(1)
