"""The training loop of a worker, which has the network, its optimizer and a share of the examples."""

import io
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import CheckpointUploadMode
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from atlas_ray.errors import CatalogError, NotFiniteError
from atlas_ray.io import storage
from atlas_ray.metrics import FIGURES, MAX_LOSS
from atlas_ray.modalities.tokens import TextIndex
from atlas_ray.runtime.tables import write_quarantine
from atlas_ray.schemas import quarantine_row
from atlas_ray.settings import Settings, flag_of
from atlas_ray.taxonomy import LabelSpace, Taxonomy
from atlas_ray.training.batches import Batches
from atlas_ray.training.networks import load_weights
from atlas_ray.training.objectives import Objective, build_objective
from atlas_ray.training.pace import Pace
from atlas_ray.training.schedule import apply_rate, rate_at
from atlas_ray.training.settings import TrainConfig
from atlas_ray.training.step import OptimizerStep
from atlas_ray.training.tracker import Tracker

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class Plan:
    """The task that the driver gives each worker."""

    config: TrainConfig
    taxonomy_json: str
    steps_per_epoch: int
    words: TextIndex | None = None
    """The vocabulary of a model of texts."""
    shape: Settings | None = None
    """The shape of a policy that fuses models, of a head, or of a model over a sentence encoder."""
    input_width: int = 0
    """The numbers in an input of these; 0 for pictures and words."""
    known: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of the network that are not learned but known before."""
    labels: tuple[str, ...] = ()
    """The labels of a model of labels."""
    leaf_counts: tuple[int, ...] = ()
    """Number of training examples of each leaf."""
    above: int = 0
    """Number of training examples that are labelled above the leaf."""
    environment: dict[str, str] = field(default_factory=dict)
    """The driver's environment variables that MLflow's client reads."""


def train_worker(settings: dict[str, Any]) -> None:
    """Train for the remaining epochs; Ray Train runs this in each worker."""
    plan: Plan = settings["plan"]
    context = ray.train.get_context()
    # By default Ray gives a worker one thread for each CPU that it reserves.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // context.get_local_world_size()))
    torch.manual_seed(plan.config.seed)
    torch.backends.cudnn.benchmark = True  # batches of one shape; a CPU has no such choice
    worker = Worker(plan, ray.train.torch.get_device(), settings["progress"])
    worker.restore()
    worker.run()


def checkpoint_at(uri: str) -> ray.train.Checkpoint:
    """Return a folder as Ray Train names it."""
    place = storage.locate(uri)
    return ray.train.Checkpoint(place.path, place.filesystem)


def blank_example(plan: Plan) -> tuple[Tensor, Tensor]:
    """Return the input and the label of an example that only fills a place, whose weight is 0."""
    label = torch.zeros(len(plan.labels), dtype=torch.bool) if plan.labels else torch.zeros((), dtype=torch.int64)
    if plan.words is not None:
        return torch.zeros(plan.words.length, dtype=torch.int32), label
    if plan.input_width:
        return torch.ones(plan.input_width), label
    assert plan.config.of_pictures is not None
    size = plan.config.of_pictures.image_size_px
    return torch.zeros((3, size, size), dtype=torch.uint8), label


def share_of(batch_size: int, rank: int, world: int) -> int:
    """Return how many pictures of each batch go to a worker."""
    return batch_size // world + (rank < batch_size % world)


def label_weights(leaf_counts: Sequence[int], labels: int) -> Tensor:
    """Return how much an example of each label counts, (labels,): for a leaf 1 / sqrt(examples), with a mean of 1.

    Nobody knows how rare the leaf of a label above it is, so such an example counts as much as the mean: 1.

    Args:
        leaf_counts: Number of examples of each leaf.
        labels: How many labels there are, the leaves first.
    """
    counts = torch.tensor(leaf_counts, dtype=torch.float32).clamp(min=1)
    weight = counts.rsqrt()
    weights = torch.ones(labels)
    weights[: len(counts)] = weight * counts.sum() / (weight * counts).sum()  # their mean over the examples is 1
    return weights


def is_better(metrics: Mapping[str, float], other: Mapping[str, float], figure: str) -> bool:
    """Tell whether an epoch's metrics beat another's: by a figure, or if that is equal by the validation loss."""
    return (metrics[figure], -metrics["val_loss"]) > (other[figure], -other["val_loss"])


@torch.no_grad()
def average_statistics(network: nn.Module, add_up: Callable[[Tensor], Tensor], workers: int) -> None:
    """Give all workers the mean of their running statistics, so that the model that is measured is the one saved.

    The normalizations of each worker see other pictures, so that their statistics drift apart.

    Args:
        network: The worker's network.
        add_up: Replaces numbers by their sum over the workers.
        workers: Number of workers.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    statistics = [buffer for buffer in kept if buffer is not None]
    if workers == 1 or not statistics:
        return
    sums = add_up(torch.cat([buffer.flatten().float() for buffer in statistics]))
    for buffer, mean in zip(statistics, (sums / workers).split([buffer.numel() for buffer in statistics]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def stopped_early(history: list[dict[str, Any]], patience: int, min_delta: float) -> bool:
    """Tell whether the validation loss made no progress for `patience` epochs."""
    best, since = float("inf"), 0
    for epoch in history:
        if not epoch["val_examples"]:  # there is no validation split
            return False
        progress = epoch["val_loss"] < best - min_delta
        since = 0 if progress else since + 1
        best = min(best, epoch["val_loss"])
    return 0 < patience <= since


def diverged(reason: str, config: TrainConfig) -> NotFiniteError:
    """Return the error that ends a diverged training, with advice."""
    rates = " ".join(f"{flag_of(name)} {rate:g}" for name, rate in config.to_dict().items() if name.endswith("_lr"))
    return NotFiniteError(
        f"the training diverged: {reason}, with {rates} --precision {config.precision}; no model is written. "
        "Train with --fresh and lower learning rates"
        + ("" if config.precision == "float32" else ", or with --precision float32")
    )


class Worker:
    """A training worker and its state."""

    def __init__(self, plan: Plan, device: torch.device, progress: Any) -> None:
        self.plan = plan
        self.config = config = plan.config
        self.device = device
        self.progress = progress
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.is_rank_zero = self.rank == 0
        taxonomy = Taxonomy.from_json(plan.taxonomy_json, source="the training plan")
        space = LabelSpace(taxonomy, plan.labels) if plan.labels else None
        self.objective = build_objective(config, taxonomy, device, plan.words, plan.shape, space)
        load_weights(self.objective.network, config, plan.words)
        self.objective.network.load_state_dict(plan.known, strict=False)
        self.objective.labels_above = plan.above > 0
        pictures = config.of_pictures
        if self.world > 1 and pictures and pictures.sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.objective.network)
        if config.compile:
            self.objective.parts()[0].compile()
        label_weight: Tensor | None = None
        if config.balance == "weights":
            label_weight = label_weights(plan.leaf_counts, len(taxonomy.label_positions)).to(device)
        self.take_step = OptimizerStep(
            self.objective, config, device, label_weight=label_weight, world=self.world, add_up=self._all_reduce
        )
        self.optimizer = self.take_step.optimizer
        self.wrapped: DistributedDataParallel | None = None
        self.wrapped_head_only = False
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.step = 0
        self.resumed_at: list[int] = []
        self.pace = Pace(
            60 * config.checkpoint_minutes, self._mean, leaves=lambda: ray.train.get_preemption_info() is not None
        )
        self.tracker = Tracker(config, plan.environment) if self.is_rank_zero else None
        self.batch_size = share_of(config.batch_size, self.rank, self.world)
        self.batches = {
            name: Batches(ray.train.get_dataset_shard(name), blank=blank_example(plan), device=device)
            for name in ("train", "val")
        }

    def restore(self) -> None:
        """Load the last checkpoint, if there is one."""
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
        """Train for the remaining epochs."""
        config, steps = self.config, self.plan.steps_per_epoch
        for epoch in range(self.step // steps, config.epochs):
            if self.has_stopped():
                break
            started = time.perf_counter()
            metrics = self.train_epoch(epoch)
            if epoch + 1 < config.epochs:
                self.batches["train"].begin(self.batch_size)
            average_statistics(self.objective.network, self._all_reduce, self.world)
            metrics |= self.validate()
            self.check(metrics, epoch)
            metrics |= {"epoch": epoch + 1, "step": self.step, "seconds": time.perf_counter() - started}
            self.history.append(metrics)
            figure = self.objective.figure
            best = not self.best or is_better(metrics, self.best["metrics"], figure)
            if (best or not metrics["val_examples"]) and self.is_rank_zero:
                weights = {
                    name: part.detach().cpu().clone() for name, part in self.objective.network.state_dict().items()
                }
                self.best = {"metrics": metrics, "network": weights}
            elif best:
                self.best = {"metrics": metrics}
            self.report(metrics, last=epoch + 1 == config.epochs or self.has_stopped())
            self.pace.restart()
            if self.tracker:
                self.tracker.epoch(metrics)
            measured = f"validation loss {metrics['val_loss']:.3f}, {FIGURES[figure]} {metrics[figure]:.4f}, "
            self.say(
                f"epoch {epoch + 1}/{config.epochs}: loss {metrics['train_loss']:.3f}, "
                f"{measured if metrics['val_examples'] else ''}{metrics['seconds']:.0f} s"
            )
        if self.tracker:
            self.tracker.close()

    def has_stopped(self) -> bool:
        """Tell whether the validation loss makes no more progress."""
        return stopped_early(self.history, self.config.patience, self.config.min_delta)

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """Train for the rest of an epoch; return its metrics."""
        config, steps = self.config, self.plan.steps_per_epoch
        rate = rate_at(config, self.step, steps)
        trained = self._trainable(rate.head_only)
        # What dropout and augmentation draw depends only on the step at which training starts, so a resumed run does
        # not draw the same again.
        torch.manual_seed(config.seed + 7919 * self.rank + 104_729 * self.step)
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, pictures
        seen = started = time.perf_counter()
        begun = self.step
        for batch in self.batches["train"].steps(self.batch_size, steps * (epoch + 1) - self.step):
            rate = rate_at(config, self.step, steps)
            apply_rate(self.optimizer, rate)
            totals += self.take_step(trained, batch)
            self.step += 1
            now = time.perf_counter()
            if self.is_rank_zero and now - seen >= 10:
                seen = now
                self._show(epoch, totals, self.step - begun, now - started, rate.factor)
            if self.step < steps * (epoch + 1) and self.pace.is_due():
                loss, count = self._sum(totals.clone())
                self.check({"train_loss": loss / max(count, 1)}, epoch)
                self.report({"step": self.step})
        loss, count = self._sum(totals)
        refused = self.batches["train"].refused
        if epoch == 0:
            self._quarantine(refused)
        if count == 0:
            uri, reason = next(iter(refused.items()), ("", "no example arrived"))
            raise CatalogError(f"no example of the split 'train' could be used; the first: {uri}: {reason}")
        groups = self.optimizer.param_groups
        return {
            "train_loss": loss / count,
            "examples_per_s": count / (time.perf_counter() - started),
            "refused_examples": self._sum(torch.tensor([len(refused)], device=self.device))[0],
            "encoder_lr": 0.0 if rate.head_only else groups[0]["lr"],
            "decoder_lr": groups[-1]["lr"],
        }

    def _trainable(self, head_only: bool) -> Objective | DistributedDataParallel:
        """Return the objective, wrapped for several workers, with the layers frozen that are not trained."""
        self.objective.train().requires_grad_(True)
        encoder = self.objective.parts()[0]
        for part in [encoder] if head_only else self.config.frozen_layers(encoder):
            part.eval().requires_grad_(False)  # normalizations keep their statistics, too
        if self.world == 1:
            return self.objective
        if self.wrapped is None or head_only != self.wrapped_head_only:
            ids = [self.device.index or 0] if self.device.type == "cuda" else None
            # Buffers are not broadcast: see `average_statistics`. Gradients lie where they are exchanged.
            self.wrapped = DistributedDataParallel(
                self.objective, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )
            if self.take_step.dtype == torch.bfloat16:  # half the bytes between the workers
                self.wrapped.register_comm_hook(None, bf16_compress_hook)
            self.wrapped_head_only = head_only
        return self.wrapped

    @torch.inference_mode()
    def validate(self) -> dict[str, Any]:
        """Return the loss and the objective's figures on the validation split."""
        objective = self.objective.eval()
        totals = torch.zeros(2 + objective.counts, dtype=torch.float64, device=self.device)
        for batch in self.batches["val"].all(self.config.batch_size // self.world or 1):
            with self.take_step.autocast:
                losses, answers = objective.evaluate(batch.inputs, batch.labels)
            usable = batch.usable[:, None]
            columns = [torch.ones_like(usable), losses[:, None], objective.count(answers, batch.labels)]
            totals += (torch.cat([column.double() for column in columns], 1) * usable).sum(0)
        count, loss, *sums = self._sum(totals)
        return {"val_examples": count, "val_loss": loss / max(count, 1.0), **objective.figures(sums, count)}

    def check(self, metrics: Mapping[str, Any], epoch: int) -> None:
        """End a training that has diverged, on all workers alike, before its state is saved.

        Raises:
            NotFiniteError: naming the metric or the weights that are not finite, or the loss above `MAX_LOSS`.
        """
        for name, value in metrics.items():
            if not math.isfinite(value) or (name.endswith("_loss") and value > MAX_LOSS):
                raise diverged(f"{name} is {value:.3g} in epoch {epoch + 1}", self.config)
        for name, tensor in self.objective.network.state_dict().items():
            if not tensor.isfinite().all():
                raise diverged(f"the weights of {name} are NaN or infinite in epoch {epoch + 1}", self.config)

    def report(self, metrics: dict[str, Any], *, last: bool = False) -> None:
        """Report the metrics and, from the first worker, a checkpoint to Ray Train, which is uploaded meanwhile.

        Args:
            metrics: The metrics.
            last: Whether there is nothing more to do, so that the upload is waited for.
        """
        mode = CheckpointUploadMode.SYNC if last else CheckpointUploadMode.ASYNC
        if not self.is_rank_zero:
            ray.train.report(metrics, checkpoint_upload_mode=mode)
            return
        state = {
            "network": self.objective.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "resumed_at": self.resumed_at,
        }
        saved = io.BytesIO()  # as it is now; the training goes on
        torch.save(state, saved)
        folder = storage.join(self.config.output, ray.train.get_context().get_experiment_name())

        def upload(_: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
            with storage.writing(storage.join(folder, name, STATE_FILE)) as stream:
                stream.write(saved.getbuffer())
            return checkpoint_at(storage.join(folder, name))

        ray.train.report(
            metrics,
            checkpoint=checkpoint_at(folder),
            checkpoint_upload_mode=mode,
            checkpoint_upload_fn=upload,
            delete_local_checkpoint_after_upload=False,  # there is none
        )

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
        """Print a line on the driver, if this is the first worker."""
        if self.is_rank_zero:
            self.progress.say.remote(text)

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

    def _mean(self, seconds: float) -> float:
        """Return the mean over all workers."""
        return self._sum(torch.tensor([seconds / self.world], device=self.device))[0]

    def _sum(self, values: Tensor) -> list[float]:
        """Return the sum over all workers."""
        return [float(value) for value in self._all_reduce(values.double())]
