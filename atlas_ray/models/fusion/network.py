"""A network of hidden layers over the models' probabilities (Wirojwatanakul and Wangperawong 2019)."""

from torch import Tensor, nn

from atlas_ray.models.fusion import ACTIVATIONS
from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork


class Network(FusionNetwork):
    """The policy `network`."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        count = len(config.names)
        widths = [count * config.outputs + count, config.hidden_dim, *[config.second_dim] * (config.layers - 1)]
        usual, last_of_three = ACTIVATIONS[config.activation]
        names = [usual] * (config.layers - 1) + [last_of_three if count == 3 else usual]
        layers: list[nn.Module] = []
        for name, before, after in zip(names, widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after), getattr(nn, name)()]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], config.outputs))

    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Run the network."""
        logits: Tensor = self.network(self.inputs(scores, present))
        return logits
