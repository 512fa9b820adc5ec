"""A network of two hidden layers over the models' probabilities (Wirojwatanakul and Wangperawong 2019)."""

from torch import Tensor, nn

from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork


class Network(FusionNetwork):
    """The policy `network`."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        count = len(config.names)
        self.network = nn.Sequential(
            nn.Linear(count * config.outputs + count, config.hidden_dim),
            nn.Sigmoid(),
            nn.Linear(config.hidden_dim, config.second_dim),
            nn.Sigmoid() if count < 3 else nn.Tanh(),
            nn.Linear(config.second_dim, config.outputs),
        )

    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Run the network."""
        logits: Tensor = self.network(self.inputs(scores, present))
        return logits
