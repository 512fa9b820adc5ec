"""Learning rates as a function of the step, so that a resumed run needs no state."""

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from atlas_ray.training.settings import TrainConfig

WARM = 0.25
"""Share of a cycle in which the rates rise."""
START_DIVISOR, END_DIVISOR = 25.0, 1e5
"""A cycle starts and ends with the rates of the settings divided by these."""
MOMENTUM_HIGH, MOMENTUM_LOW = 0.95, 0.85
"""Adam's first beta at both ends of a cycle, and at its peak."""


@dataclass(frozen=True)
class Rate:
    """The learning rates of a step."""

    factor: float
    """The factor of the learning rates in the settings."""
    momentum: float | None
    """Adam's first beta; None for its default."""
    head_only: bool
    """Whether the encoder is not trained."""


def rate_at(config: TrainConfig, step: int, steps_per_epoch: int) -> Rate:
    """Return the rate of a step, counted from 0 over the whole run.

    The first `head_epochs` have a cycle of their own, as in fastai's fine-tuning. One-cycle is Smith's ("A disciplined
    approach to neural network hyper-parameters", 2018) in fastai's form: along cosines up for a quarter of the cycle
    and down for the rest, and momentum the other way.
    """
    head = (config.of_pictures.head_epochs if config.of_pictures else 0) * steps_per_epoch
    whole = config.epochs * steps_per_epoch
    head_only = step < head
    if config.schedule == "constant":
        return Rate(1.0, None, head_only)
    at = step / head if head_only else (step - head) / max(1, whole - head)
    if at < WARM:
        share = at / WARM
        return Rate(_between(1 / START_DIVISOR, 1.0, share), _between(MOMENTUM_HIGH, MOMENTUM_LOW, share), head_only)
    share = min(1.0, (at - WARM) / (1 - WARM))
    return Rate(_between(1.0, 1 / END_DIVISOR, share), _between(MOMENTUM_LOW, MOMENTUM_HIGH, share), head_only)


def apply_rate(optimizer: Optimizer, rate: Rate) -> None:
    """Set the rates of an optimizer's groups; their `base_lr` holds those of the settings."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * rate.factor
        if rate.momentum is not None:
            group["betas"] = (rate.momentum, group["betas"][1])


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
