"""A network over the models' joined features instead of their decisions, which the late-fusion paper leaves open."""

import torch
from torch import Tensor, nn

from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork


class Early(FusionNetwork):
    """The policy `early`."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.network = nn.Sequential(
            nn.Linear(sum(config.widths) + len(config.names), config.hidden_dim),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, config.outputs),
        )

    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Run the network over the features and the flags of present modalities."""
        assert features is not None
        logits: Tensor = self.network(torch.cat([features, present.to(features.dtype)], 1))
        return logits
