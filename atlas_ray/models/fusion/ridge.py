"""A ridge regression on the models' probabilities (Wirojwatanakul and Wangperawong 2019)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork

MAX_WIDTH = 12_000
"""The most rows and columns of the regression's matrix: 1.2 GB, and as much again to solve it."""


class Ridge(FusionNetwork):
    """The policy `ridge`.

    The regression of each output sees the models' probabilities of all outputs. Where its matrix would be too large,
    it sees those of its own output alone.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        count = len(config.names)
        self.sees_all = count * (config.outputs + 1) + 1 <= MAX_WIDTH
        width = count * config.outputs if self.sees_all else count
        self.ridge = nn.Linear(width + count, config.outputs)

    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Apply the regressions."""
        inputs = self.inputs(scores, present)
        if self.sees_all:
            return self.logits(self.ridge(inputs))
        count = len(self.config.names)
        own, flags = inputs[:, :-count].view_as(scores), inputs[:, -count:]
        seen = torch.einsum("bmn,nm->bn", own, self.ridge.weight[:, :count])
        return self.logits(seen + flags @ self.ridge.weight[:, count:].T + self.ridge.bias)

    def solve(self, rows: Iterable[tuple[Tensor, Tensor, Tensor]], penalty: float) -> None:
        """Solve the regressions of the truth on the models' probabilities.

        A product counts once for each set of two or more of its modalities, so that they also learn from products
        without one of them.
        """
        modalities, outputs = len(self.config.names), self.config.outputs
        width = self.ridge.in_features + 1
        # Regressions that see the same are solved as one; R is their number, (R, ...).
        count, answers = (1, outputs) if self.sees_all else (outputs, 1)
        gram = torch.zeros(count, width, width, dtype=torch.float64)
        moment = torch.zeros(count, width, answers, dtype=torch.float64)
        subsets = [
            torch.tensor([bool(bits >> position & 1) for position in range(modalities)])
            for bits in range(1, 2**modalities)
            if bits.bit_count() >= 2
        ]
        for scores, present, truth in rows:
            for subset in subsets:
                whole = (present | ~subset).all(1)  # (batch,) which products have the whole subset
                mask = subset.expand(int(whole.sum()), -1)
                probabilities = self.probabilities(scores[whole]) * mask[:, :, None]
                seen = probabilities.flatten(1)[None] if self.sees_all else probabilities.permute(2, 0, 1)
                same = torch.cat([mask, torch.ones(len(mask), 1)], 1).expand(count, -1, -1)
                x = torch.cat([seen, same], 2).double()  # (R, batch, width)
                y = truth[whole].double()
                gram += x.mT @ x
                moment += x.mT @ (y[None] if self.sees_all else y.T[:, :, None])
        solved = torch.linalg.solve(gram + penalty * torch.eye(width, dtype=torch.float64), moment)
        solved = solved[0] if self.sees_all else solved[:, :, 0].T  # (width, outputs)
        with torch.no_grad():
            self.ridge.weight.copy_(solved[:-1].T)
            self.ridge.bias.copy_(solved[-1])
