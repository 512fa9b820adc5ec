"""Learning rates as a function of the step, so that a resumed run needs no state of them."""

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from atlas_ray.training.settings import TrainConfig

WARM = 0.25
START_DIVISOR, END_DIVISOR = 25.0, 1e5
MOMENTUM_HIGH, MOMENTUM_LOW = 0.95, 0.85


@dataclass(frozen=True)
class Rate:
    """What holds at one step."""

    factor: float
    """Of the learning rates in the settings."""
    momentum: float | None
    """Adam's first beta; None for its default."""
    head_only: bool
    """Whether the encoder keeps still."""


def rate_at(config: TrainConfig, step: int, steps_per_epoch: int) -> Rate:
    """Return the rate of a step, counted from 0 over the whole run.

    The first `head_epochs` have a cycle of their own, as fastai fine-tunes. One-cycle is Smith's
    ("A disciplined approach to neural network hyper-parameters", 2018) in fastai's form: along
    cosines up for a quarter of the way and down for the rest, momentum against it.
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
    """Set an optimizer's groups, whose `base_lr` holds the rates of the settings."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * rate.factor
        if rate.momentum is not None:
            group["betas"] = (rate.momentum, group["betas"][1])


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
