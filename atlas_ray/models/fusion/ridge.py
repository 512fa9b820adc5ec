"""A ridge regression on the models' probabilities (Wirojwatanakul and Wangperawong 2019)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork

MAX_WIDTH = 12_000
"""The most rows and columns of the regression's matrix: 1.2 GB, and as much again to solve it."""


class Ridge(FusionNetwork):
    """The policy `ridge`."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        count = len(config.names)
        self.ridge = nn.Linear(count * config.outputs + count, config.outputs)

    @classmethod
    def check(cls, config: FusionConfig) -> None:
        """Refuse a regression whose matrix would be too large for a machine.

        Raises:
            ConfigError: naming its size.
        """
        count = len(config.names)
        width = count * (config.outputs + 1) + 1
        if width > MAX_WIDTH:
            raise ConfigError(
                f"policy 'ridge' over {count} models of {config.outputs} paths or labels: a matrix of {width} "
                f"rows and columns, at most {MAX_WIDTH}; expected another policy, such as weighted"
            )

    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Apply the regression."""
        return self.logits(self.ridge(self.inputs(scores, present)))

    def solve(self, rows: Iterable[tuple[Tensor, Tensor, Tensor]], penalty: float) -> None:
        """Solve the regression of the truth on the models' probabilities.

        A product counts once for each set of two or more of its modalities, so that the regression also learns from
        products without one of them.
        """
        modalities, outputs = len(self.config.names), self.config.outputs
        width = modalities * outputs + modalities + 1
        gram, moment = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, outputs, dtype=torch.float64)
        subsets = [
            torch.tensor([bool(bits >> position & 1) for position in range(modalities)])
            for bits in range(1, 2**modalities)
            if bits.bit_count() >= 2
        ]
        for scores, present, truth in rows:
            for subset in subsets:
                whole = (present | ~subset).all(1)  # (batch,) which products have the whole subset
                mask = subset.expand(int(whole.sum()), -1)
                probabilities = (self.probabilities(scores[whole]) * mask[:, :, None]).flatten(1)
                x = torch.cat([probabilities, mask, torch.ones(len(mask), 1)], 1).double()
                gram += x.T @ x
                moment += x.T @ truth[whole].double()
        solved = torch.linalg.solve(gram + penalty * torch.eye(width, dtype=torch.float64), moment)
        with torch.no_grad():
            self.ridge.weight.copy_(solved[:-1].T)
            self.ridge.bias.copy_(solved[-1])
