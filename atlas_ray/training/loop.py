"""The training loop of one worker: a network, its optimizer, its share of the examples."""

import math
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import ray.train
import ray.train.torch
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from atlas_ray.errors import CatalogError, NotFiniteError
from atlas_ray.io import storage
from atlas_ray.metrics import FIGURES
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.models.fusion.policy import FusionConfig
from atlas_ray.prediction.paths import choose_dtype
from atlas_ray.runtime.tables import write_quarantine
from atlas_ray.schemas import quarantine_row
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from atlas_ray.training.augment import augment
from atlas_ray.training.batches import Batches, Examples
from atlas_ray.training.networks import load_weights
from atlas_ray.training.objectives import Objective, build_objective
from atlas_ray.training.opinions import opinion_width
from atlas_ray.training.schedule import apply_rate, rate_at
from atlas_ray.training.settings import TrainConfig
from atlas_ray.training.tracker import Tracker

STATE_FILE = "state.pt"
DIVERGED = 1e4
"""Of the mean loss: a model that gives the right answers a probability of e^-10000 is none."""


@dataclass(frozen=True)
class Plan:
    """What the driver hands to each worker."""

    config: TrainConfig
    taxonomy_json: str
    steps_per_epoch: int
    words: WordIndex | None = None
    """What a model of texts knows."""
    fusion: FusionConfig | None = None
    """The shape of a policy that fuses models."""
    labels: tuple[str, ...] = ()
    """Those that a model of labels names."""
    leaf_counts: tuple[int, ...] = ()
    """Training examples by leaf."""
    environment: dict[str, str] = field(default_factory=dict)
    """What MLflow's client reads from the driver's environment."""


def train_worker(settings: dict[str, Any]) -> None:
    """Train for the epochs that are left; Ray Train runs this in each worker."""
    plan: Plan = settings["plan"]
    context = ray.train.get_context()
    # Ray gives a worker one thread a CPU it asked for.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // context.get_local_world_size()))
    torch.manual_seed(plan.config.seed)
    worker = Worker(plan, ray.train.torch.get_device(), settings["board"])
    worker.restore()
    worker.run()


def blank_input(plan: Plan) -> Tensor:
    """Return the input of an example that only fills a place."""
    if plan.words is not None:
        return torch.zeros(plan.words.length, dtype=torch.int32)
    if plan.fusion is not None:
        return torch.ones(opinion_width(plan.fusion))
    assert plan.config.of_pictures is not None
    size = plan.config.of_pictures.image_size_px
    return torch.zeros((3, size, size), dtype=torch.uint8)


def share_of(batch_size: int, rank: int, world: int) -> int:
    """Return how many pictures of each batch a worker takes."""
    return batch_size // world + (rank < batch_size % world)


def better(one: Mapping[str, float], other: Mapping[str, float], figure: str) -> bool:
    """Tell whether an epoch is better than another: by its figure, or where that is the same by its validation loss."""
    return (one[figure], -one["val_loss"]) > (other[figure], -other["val_loss"])


def stopped_early(history: list[dict[str, Any]], patience: int, min_delta: float) -> bool:
    """Tell whether the validation loss made no progress for so many epochs."""
    best, since = float("inf"), 0
    for epoch in history:
        if not epoch["val_examples"]:  # there is no validation split
            return False
        progress = epoch["val_loss"] < best - min_delta
        since = 0 if progress else since + 1
        best = min(best, epoch["val_loss"])
    return 0 < patience <= since


def diverged(what: str, config: TrainConfig) -> NotFiniteError:
    """Return the error that ends a training, with what there is to be tried."""
    return NotFiniteError(
        f"the training diverged: {what}, with --encoder-lr {config.encoder_lr:g} --decoder-lr {config.decoder_lr:g} "
        f"--precision {config.precision}; no model is written. Train with --fresh and lower learning rates"
        + ("" if config.precision == "float32" else ", or with --precision float32")
    )


class Worker:
    """The state of one worker."""

    def __init__(self, plan: Plan, device: torch.device, board: Any) -> None:
        self.plan = plan
        self.config = config = plan.config
        self.device = device
        self.board = board
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.chief = self.rank == 0
        taxonomy = Taxonomy.from_json(plan.taxonomy_json, source="the training plan")
        space = LabelSpace(taxonomy, plan.labels) if plan.labels else None
        self.objective = build_objective(config, taxonomy, device, plan.words, plan.fusion, space)
        load_weights(self.objective.network, config, plan.words)
        pictures = config.of_pictures
        if self.world > 1 and pictures and pictures.sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.objective.network)
        if config.compile:
            self.objective.parts()[0].compile()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.objective, config), fused=True)
        dtype = choose_dtype(config.precision, device)
        self.autocast: AbstractContextManager[Any] = (
            torch.autocast(device.type, dtype=dtype) if dtype == torch.bfloat16 else nullcontext()
        )
        counts = torch.tensor(plan.leaf_counts, dtype=torch.float32, device=device).clamp(min=1)
        weight = counts.rsqrt() if config.balance == "weights" else torch.ones_like(counts)
        self.leaf_weight = weight * counts.sum() / (weight * counts).sum()  # mean 1 over the examples
        self.wrapped: DistributedDataParallel | None = None
        self.wrapped_head_only = False
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.step = 0
        self.resumed_at: list[int] = []
        self.tracker = Tracker(config, plan.environment) if self.chief else None
        self.batch_size = share_of(config.batch_size, self.rank, self.world)
        self._augments = pictures is not None and pictures.augment
        self.batches = {
            name: Batches(ray.train.get_dataset_shard(name), blank=blank_input(plan), device=device)
            for name in ("train", "val")
        }

    def restore(self) -> None:
        """Take up the last checkpoint."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            state = torch.load(os.path.join(folder, STATE_FILE), map_location="cpu", weights_only=True)
        self.objective.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.best, self.step = state["history"], state["best"], state["step"]
        self.resumed_at = [*state["resumed_at"], self.step]

    def run(self) -> None:
        """Train the epochs that are left."""
        config, steps = self.config, self.plan.steps_per_epoch
        for epoch in range(self.step // steps, config.epochs):
            if stopped_early(self.history, config.patience, config.min_delta):
                break
            started = time.perf_counter()
            metrics = self.train_epoch(epoch)
            if epoch + 1 < config.epochs:
                self.batches["train"].begin(self.batch_size)
            metrics |= self.validate()
            self.check(metrics, epoch)
            metrics |= {"epoch": epoch + 1, "step": self.step, "seconds": time.perf_counter() - started}
            self.history.append(metrics)
            figure = self.objective.figure
            best = not self.best or better(metrics, self.best["metrics"], figure)
            if (best or not metrics["val_examples"]) and self.chief:
                weights = {
                    name: part.detach().cpu().clone() for name, part in self.objective.network.state_dict().items()
                }
                self.best = {"metrics": metrics, "network": weights}
            elif best:
                self.best = {"metrics": metrics}
            self.report(metrics)
            if self.tracker:
                self.tracker.epoch(metrics)
            measured = f"validation loss {metrics['val_loss']:.3f}, {FIGURES[figure]} {metrics[figure]:.4f}, "
            self.say(
                f"epoch {epoch + 1}/{config.epochs}: loss {metrics['train_loss']:.3f}, "
                f"{measured if metrics['val_examples'] else ''}{metrics['seconds']:.0f} s"
            )
        if self.tracker:
            self.tracker.close()

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """Run what is left of an epoch."""
        config, steps = self.config, self.plan.steps_per_epoch
        rate = rate_at(config, self.step, steps)
        trained = self._trainable(rate.head_only)
        # The pictures of an epoch and what dropout and augmentation draw depend on where it starts
        # alone, so a resumed run draws nothing twice.
        torch.manual_seed(config.seed + 7919 * self.rank + 104_729 * self.step)
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, pictures
        seen = started = time.perf_counter()
        begun = self.step
        for batch in self.batches["train"].steps(self.batch_size, steps * (epoch + 1) - self.step):
            rate = rate_at(config, self.step, steps)
            apply_rate(self.optimizer, rate)
            totals += self._step(trained, batch)
            self.step += 1
            now = time.perf_counter()
            if self.chief and now - seen >= 10:
                seen = now
                self._show(epoch, totals, self.step - begun, now - started, rate.factor)
            left = steps * (epoch + 1) - self.step
            if config.checkpoint_steps and self.step % config.checkpoint_steps == 0 and left:
                loss, count = self._sum(totals.clone())
                self.check({"train_loss": loss / max(count, 1)}, epoch)
                self.report({"step": self.step})
        loss, count = self._sum(totals)
        refused = self.batches["train"].refused
        if epoch == 0:
            self._quarantine(refused)
        if count == 0:
            uri, reason = next(iter(refused.items()), ("", "none came"))
            raise CatalogError(f"no example of the split 'train' could be used; the first: {uri}: {reason}")
        groups = self.optimizer.param_groups
        return {
            "train_loss": loss / count,
            "examples_per_s": count / (time.perf_counter() - started),
            "refused_examples": self._sum(torch.tensor([len(refused)], device=self.device))[0],
            "encoder_lr": 0.0 if rate.head_only else groups[0]["lr"],
            "decoder_lr": groups[-1]["lr"],
        }

    def _step(self, trained: Objective | DistributedDataParallel, batch: Examples) -> Tensor:
        """Take one optimizer step; return the sum of the losses and of their pictures, (2,).

        Each worker's part counts by its weight among all workers', so the gradient is that of one worker with the
        whole batch, however the pictures are shared; but for batch normalizations that are trained, which see the
        pictures of one worker, unless `sync_batch_norm` is set.
        """
        weights = self.leaf_weight[batch.labels] * batch.usable
        total = self._all_reduce(weights.sum()).clamp(min=1e-9)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.config.accumulate
        split = zip(*(x.tensor_split(parts) for x in (batch.inputs, batch.labels, weights)), strict=True)
        for number, (part, labels, weight) in enumerate(split, 1):
            inputs = augment(part) if self._augments else part
            # Gradients travel between the workers once a step, after the last part.
            apart = number < parts and isinstance(trained, DistributedDataParallel)
            with cast("DistributedDataParallel", trained).no_sync() if apart else nullcontext():
                with self.autocast:
                    losses = trained(inputs, labels)
                loss = (losses * weight).sum()
                (loss * self.world / total).backward()
            loss_sum += loss.detach()
        nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip)
        self.optimizer.step()
        return torch.stack([loss_sum, weights.sum().double()])

    def _trainable(self, head_only: bool) -> Objective | DistributedDataParallel:
        """Let the encoder learn, or its first blocks keep still; wrapped for several workers."""
        self.objective.train().requires_grad_(True)
        if pictures := self.config.of_pictures:
            encoder = self.objective.parts()[0]
            for part in encoder.children() if head_only else pictures.frozen_layers(encoder):
                part.eval().requires_grad_(False)  # their normalizations keep their statistics too
        if self.world == 1:
            return self.objective
        if self.wrapped is None or head_only != self.wrapped_head_only:
            ids = [self.device.index or 0] if self.device.type == "cuda" else None
            # Buffers are not sent around: each worker's normalizations see pictures of their own, and
            # the first worker's statistics are those that the checkpoint keeps.
            self.wrapped = DistributedDataParallel(self.objective, device_ids=ids, broadcast_buffers=False)
            self.wrapped_head_only = head_only
        return self.wrapped

    @torch.inference_mode()
    def validate(self) -> dict[str, Any]:
        """Measure the loss and the objective's figures on the validation split."""
        objective = self.objective.eval()
        totals = torch.zeros(2 + objective.counts, dtype=torch.float64, device=self.device)
        for batch in self.batches["val"].all(self.config.batch_size // self.world or 1):
            with self.autocast:
                losses, answers = objective.evaluate(batch.inputs, batch.labels)
            usable = batch.usable[:, None]
            columns = [torch.ones_like(usable), losses[:, None], objective.count(answers, batch.labels)]
            totals += (torch.cat([column.double() for column in columns], 1) * usable).sum(0)
        count, loss, *sums = self._sum(totals)
        return {"val_examples": count, "val_loss": loss / max(count, 1.0), **objective.figures(sums, count)}

    def check(self, metrics: Mapping[str, Any], epoch: int) -> None:
        """End a training that has diverged, on all workers alike, before its state is kept.

        Raises:
            NotFiniteError: saying what is no number, or a loss that no network has that learns.
        """
        for name, value in metrics.items():
            if not math.isfinite(value) or (name.endswith("_loss") and value > DIVERGED):
                raise diverged(f"{name} is {value:.3g} in epoch {epoch + 1}", self.config)
        for name, tensor in self.objective.network.state_dict().items():
            if not tensor.isfinite().all():
                raise diverged(f"the weights of {name} are NaN or infinite in epoch {epoch + 1}", self.config)

    def report(self, metrics: dict[str, Any]) -> None:
        """Hand Ray Train the metrics and, from the first worker, the checkpoint."""
        if not self.chief:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="atlas-ray-") as folder:
            state = {
                "network": self.objective.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "history": self.history,
                "best": self.best,
                "resumed_at": self.resumed_at,
            }
            with storage.writing(os.path.join(folder, STATE_FILE)) as stream:
                torch.save(state, stream)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _show(self, epoch: int, totals: Tensor, steps: int, seconds: float, factor: float) -> None:
        loss, pictures = totals.tolist()
        rate = pictures / seconds
        left = (self.plan.steps_per_epoch * self.config.epochs - self.step) * seconds / steps
        mean = loss / max(pictures, 1)
        self.say(
            f"epoch {epoch + 1}/{self.config.epochs}: loss {mean:.3f}, {rate * self.world:.0f} "
            f"{self.config.examples}/s, at most {left:.0f} s left"
        )
        if self.tracker:
            self.tracker.step(self.step, {"loss": mean, "examples_per_s": rate * self.world, "lr_factor": factor})

    def say(self, text: str) -> None:
        """Print a line on the driver, from the first worker alone."""
        if self.chief:
            self.board.say.remote(text)

    def _quarantine(self, refused: dict[str, str]) -> None:
        rows = [
            quarantine_row("train", code, message, image_uri=uri)
            for uri, (code, _, message) in ((uri, text.partition(": ")) for uri, text in refused.items())
        ]
        write_quarantine(self.config.output, rows, f"train-{self.rank:05d}")

    def _all_reduce(self, values: Tensor) -> Tensor:
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def _sum(self, values: Tensor) -> list[float]:
        """Add up over all workers."""
        return [float(value) for value in self._all_reduce(values.double())]


def parameter_groups(objective: Objective, config: TrainConfig) -> list[dict[str, Any]]:
    """Encoder and the rest with their own rates; weight decay for matrices alone."""
    groups = []
    for part, rate in zip(objective.parts(), (config.encoder_lr, config.decoder_lr), strict=True):
        parameters = list(part.parameters())
        for chosen, decay in (
            ([p for p in parameters if p.ndim > 1], config.weight_decay),
            ([p for p in parameters if p.ndim <= 1], 0.0),
        ):
            groups.append({"params": chosen, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return groups
