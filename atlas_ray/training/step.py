"""An optimizer step of a worker: losses, gradients, their limits, and the update of the weights."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from atlas_ray.prediction.device import choose_dtype
from atlas_ray.training.augment import augment
from atlas_ray.training.batches import Examples
from atlas_ray.training.objectives import Objective
from atlas_ray.training.settings import TrainConfig


class OptimizerStep:
    """An objective's optimizer, and what a step with it is."""

    def __init__(
        self,
        objective: Objective,
        config: TrainConfig,
        device: torch.device,
        *,
        label_weight: Tensor | None = None,
        world: int = 1,
        add_up: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        """Prepare the optimizer.

        Args:
            objective: The network with its loss, on the device.
            config: The settings of training.
            device: The device of the batches.
            label_weight: (labels,) weight of the examples of each label; None: 1.
            world: Number of workers.
            add_up: Replaces numbers by their sum over the workers.
        """
        self.config = config
        self.label_weight = label_weight
        self.optimizer = torch.optim.AdamW(parameter_groups(objective, config), fused=True)
        self.dtype = choose_dtype(config.precision, device)
        self.autocast: AbstractContextManager[Any] = (
            torch.autocast(device.type, dtype=self.dtype) if self.dtype == torch.bfloat16 else nullcontext()
        )
        self._objective = objective
        self._device = device
        self._world = world
        self._add_up = add_up
        pictures = config.of_pictures
        self._augments = pictures is not None and pictures.augment

    def __call__(self, trained: Objective | DistributedDataParallel, batch: Examples) -> Tensor:
        """Take one optimizer step; return the sum of the losses and that of the examples' weights, (2,) float64.

        Each worker's part is weighted by its share of the batch, so the gradient is that of one worker with the whole
        batch. The exception are batch normalizations that are trained: they see the pictures of one worker, unless
        `sync_batch_norm` is set.

        Args:
            trained: The objective, or what wraps it for several workers.
            batch: This worker's share of the batch.
        """
        weights = batch.usable if self.label_weight is None else self.label_weight[batch.labels] * batch.usable
        total = self._add_up(weights.sum()).clamp(min=1e-9)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self._device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.config.accumulate
        split = zip(*(x.tensor_split(parts) for x in (batch.inputs, batch.labels, weights)), strict=True)
        for number, (part, labels, weight) in enumerate(split, 1):
            inputs = augment(part) if self._augments else part
            # The workers exchange gradients once a step, after the last part.
            local = number < parts and isinstance(trained, DistributedDataParallel)
            with cast("DistributedDataParallel", trained).no_sync() if local else nullcontext():
                with self.autocast:
                    losses = trained(inputs, labels)
                loss = (losses * weight).sum()
                (loss * self._world / total).backward()
            loss_sum += loss.detach()
        clip(list(self._objective.parameters()), self.config)
        self.optimizer.step()
        return torch.stack([loss_sum, weights.sum().double()])


def parameter_groups(objective: Objective, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the optimizer's groups: the encoder and the rest, each with and without weight decay."""
    groups = []
    rates = getattr(config, "encoder_lr", 0.0), config.decoder_lr  # a policy has no encoder
    for part, rate in zip(objective.parts(), rates, strict=True):
        parameters = list(part.parameters())
        for chosen, decay in (
            ([p for p in parameters if p.ndim > 1], config.weight_decay),
            ([p for p in parameters if p.ndim <= 1], 0.0),
        ):
            groups.append({"params": chosen, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return groups


def clip(parameters: Sequence[Tensor], config: TrainConfig) -> None:
    """Cut off the numbers of the gradients, then scale all of them down to the largest norm."""
    if config.clip_value:
        nn.utils.clip_grad_value_(parameters, config.clip_value)
    nn.utils.clip_grad_norm_(parameters, config.clip)
