"""What each training worker runs: one model, its optimizer, its share of the pictures."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.train
import ray.train.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from atlas_ray import storage
from atlas_ray.decoding import TrieTensors, beam_search, exact_search
from atlas_ray.errors import CatalogError
from atlas_ray.models import EncoderDecoder, EncoderDecoderConfig
from atlas_ray.models.backbone import load_backbone_weights
from atlas_ray.models.encoder_decoder import DecoderStep
from atlas_ray.predictors import EXACT_NODE_BUDGET, choose_dtype
from atlas_ray.records import QUARANTINE, quarantine_row
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie
from atlas_ray.taxonomy.vocabulary import END, PAD
from atlas_ray.training.augment import augment
from atlas_ray.training.config import TrainConfig

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class Plan:
    """What the driver hands to each worker."""

    config: TrainConfig
    taxonomy_json: str
    steps_per_epoch: int

    def model_config(self, vocabulary: Vocabulary) -> EncoderDecoderConfig:
        """Return the shape of the network."""
        config = self.config
        return EncoderDecoderConfig(
            vocabulary_size=len(vocabulary),
            backbone=config.backbone,
            image_size_px=config.image_size_px,
            embedding_dim=config.hidden_dim,
            attention_dim=config.hidden_dim,
            decoder_dim=config.hidden_dim,
            dropout=config.dropout,
        )


def train_worker(settings: dict[str, Any]) -> None:
    """Train for the epochs that are left, reporting a checkpoint after each."""
    plan: Plan = settings["plan"]
    config = plan.config
    context = ray.train.get_context()
    threads = max(1, (os.cpu_count() or 1) // context.get_local_world_size())
    torch.set_num_threads(threads)  # Ray gives a worker one thread a CPU it asked for
    torch.manual_seed(config.seed + context.get_world_rank())
    taxonomy = Taxonomy.from_json(plan.taxonomy_json, source="the training plan")
    vocabulary = Vocabulary.of(taxonomy)
    device = ray.train.torch.get_device()
    model = EncoderDecoder(plan.model_config(vocabulary))
    load_backbone_weights(model.encoder, config.backbone, config.weights)
    model = model.to(memory_format=torch.channels_last)
    tree = TrieTensors(compile_trie(taxonomy, vocabulary), device)
    worker = _Worker(plan, model, tree, device, settings["board"])
    history = worker.restore()
    shard = {name: ray.train.get_dataset_shard(name) for name in ("train", "val")}
    for epoch in range(len(history), config.epochs):
        started = time.perf_counter()
        metrics = worker.train_epoch(epoch, shard["train"])
        trained = time.perf_counter() - started
        metrics |= worker.validate(shard["val"])
        metrics |= {"epoch": epoch + 1, "seconds": time.perf_counter() - started}
        metrics["pictures_per_s"] = metrics.pop("pictures") / trained
        history.append(metrics)
        worker.report(history)
        title = f"epoch {epoch + 1}/{config.epochs}"
        _Progress(worker.board, title, plan.steps_per_epoch).say(
            f"loss {metrics['train_loss']:.3f}, validation accuracy {metrics['val_accuracy']:.4f}, "
            f"{metrics['seconds']:.0f} s"
        )


class _Worker:
    """The state of one worker."""

    def __init__(self, plan: Plan, model: EncoderDecoder, tree: TrieTensors, device: torch.device, board: Any) -> None:
        self.config = config = plan.config
        self.steps_per_epoch = plan.steps_per_epoch
        self.board = board
        self.device = device
        self.tree = tree
        self.plain = model.to(device)
        world = ray.train.get_context().get_world_size()
        self.batch_size = config.batch_size // world
        self.model: nn.Module = ray.train.torch.prepare_model(model) if world > 1 else model
        self.optimizer = torch.optim.AdamW(_parameter_groups(model, config))
        self.schedule = None
        if config.schedule == "one-cycle":
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer,
                [group["lr"] for group in self.optimizer.param_groups],
                total_steps=max(2, config.epochs * plan.steps_per_epoch + 1),
                pct_start=0.2,
            )
        self.total_steps = config.epochs * plan.steps_per_epoch
        dtype = choose_dtype(config.precision, device)
        self.autocast = torch.autocast(device.type, dtype=dtype) if dtype == torch.bfloat16 else nullcontext()
        leaf_tokens = torch.from_numpy(tree.trie.leaf_tokens)
        ended = torch.cat([leaf_tokens, torch.full_like(leaf_tokens[:, :1], PAD)], 1)
        ended[torch.arange(len(ended)), tree.leaf_length.cpu()] = END
        self.targets = ended.to(device)  # (leaves, depth + 1) each path's tokens, then <end>

    def restore(self) -> list[dict[str, Any]]:
        """Take up the last checkpoint; return the metrics of the epochs that are done."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return []
        with checkpoint.as_directory() as folder:
            state = torch.load(os.path.join(folder, STATE_FILE), map_location="cpu", weights_only=True)
        self.plain.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        return list(state["history"])

    def train_epoch(self, epoch: int, shard: Any) -> dict[str, Any]:
        self.model.train()
        totals = torch.zeros(3, device=self.device)  # loss, pictures, steps
        progress = _Progress(self.board, f"epoch {epoch + 1}/{self.config.epochs}", self.steps_per_epoch)
        refused: list[tuple[str, str]] = []
        for pictures, labels, usable in self._batches(shard, refused, drop_last=True):
            # Every worker takes every step, or the others would wait for it: an unusable batch weighs 0.
            loss = self._step(pictures, labels, float(usable))
            totals += torch.stack(
                [
                    loss * len(labels) * usable,
                    torch.tensor(len(labels) * usable, device=self.device),
                    totals.new_ones(()),
                ]
            )
            progress.show(totals)
            if self.schedule is not None and self.schedule.last_epoch < self.total_steps:
                self.schedule.step()
        if epoch == 0:
            self._quarantine(refused)
        loss_sum, count, _ = self._sum(totals)
        if count == 0:
            uri, reason = refused[0] if refused else ("", "no picture came")
            raise CatalogError(f"no picture of the split 'train' could be used; the first: {uri}: {reason}")
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return {
            "train_loss": loss_sum / max(count, 1.0),
            "pictures": count,
            "refused_pictures": self._sum(torch.tensor([float(len(refused))], device=self.device))[0],
            "encoder_lr": rates[0],
            "decoder_lr": rates[-1],
        }

    def _step(self, pictures: Tensor, labels: Tensor, weight: float) -> Tensor:
        config = self.config
        tokens = self.targets[labels]  # (batch, steps)
        pictures = augment(pictures) if config.augment else pictures
        with self.autocast:
            logits, weights = self.model(pictures, tokens)
        loss = cross_entropy(
            logits.float().flatten(0, 1),
            tokens.flatten(),
            ignore_index=PAD,
            label_smoothing=config.label_smoothing,
        )
        count = self.plain.decoder.attention.count  # (regions,)
        looked = weights.float().sum(1) / count  # (batch, regions), over all steps
        uneven = ((1 - looked) ** 2 * count).sum(1).mean() / count.sum()
        self.optimizer.zero_grad(set_to_none=True)
        (weight * (loss + config.attention_regularization * uneven)).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        return loss.detach()

    @torch.inference_mode()
    def validate(self, shard: Any) -> dict[str, Any]:
        self.model.eval()
        totals = torch.zeros(2 + self.tree.trie.depth, device=self.device)
        ancestors = self.tree.ancestors
        for pictures, labels, usable in self._batches(shard, [], drop_last=False):
            if not usable:
                continue
            with self.autocast:
                step = DecoderStep(self.plain, self.plain.encode(pictures))
                small = self.tree.trie.inner_count <= EXACT_NODE_BUDGET
                found = (exact_search if small else beam_search)(step, self.tree, top_k=1)
            best = found.leaf[:, 0]
            same = (ancestors[best] == ancestors[labels]) & (ancestors[labels] >= 0)  # (batch, depth)
            totals += torch.cat([totals.new_tensor([len(labels)]), (best == labels).sum()[None], same.sum(0)])
        count, exact, *levels = self._sum(totals)
        lengths = max(count, 1.0)
        return {
            "val_pictures": count,
            "val_accuracy": exact / lengths,
            **{f"val_accuracy_level_{level}": right / lengths for level, right in enumerate(levels, 1)},
        }

    def report(self, history: list[dict[str, Any]]) -> None:
        """Hand Ray Train the metrics and, from rank 0, the checkpoint."""
        if ray.train.get_context().get_world_rank() != 0:
            ray.train.report(history[-1])
            return
        with tempfile.TemporaryDirectory(prefix="atlas-ray-") as folder:
            state = {
                "model": self.plain.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict() if self.schedule is not None else {},
                "history": history,
            }
            torch.save(state, os.path.join(folder, STATE_FILE))
            ray.train.report(history[-1], checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _batches(
        self, shard: Any, refused: list[tuple[str, str]], *, drop_last: bool
    ) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """Yield (pictures uint8, labels, usable) on the device; refused pictures are put aside.

        A batch with too few good pictures comes whole, blank ones included, and is not usable.
        """
        batches = shard.iter_batches(
            batch_size=self.batch_size,
            batch_format="numpy",
            prefetch_batches=2,
            drop_last=drop_last,
        )
        for batch in batches:
            good = batch["refused"] == ""
            if not good.all():
                bad = np.flatnonzero(~good)
                refused += [(str(batch["image_uri"][i]), str(batch["refused"][i])) for i in bad]
            usable = bool(good.sum() >= (2 if self.model.training else 1))  # batch normalization needs two
            if not usable:
                good[:] = True
            pictures = torch.from_numpy(batch["pixels"][good])
            labels = torch.from_numpy(batch["label"][good])
            yield pictures.to(self.device, non_blocking=True), labels.to(self.device), usable

    def _quarantine(self, refused: list[tuple[str, str]]) -> None:
        if not refused:
            return
        rows = [
            quarantine_row("train", code, message, image_uri=uri)
            for uri, (code, _, message) in ((uri, text.partition(": ")) for uri, text in refused)
        ]
        rank = ray.train.get_context().get_world_rank()
        folder = storage.join(self.config.output, "quarantine")
        storage.make_folder(folder)
        place = storage.locate(storage.join(folder, f"train-{rank:05d}.parquet"))
        pq.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE), place.path, filesystem=place.filesystem)

    def _sum(self, values: Tensor) -> list[float]:
        """Add up over all workers."""
        values = values.double()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(values)
        return [float(value) for value in values]


def _parameter_groups(model: EncoderDecoder, config: TrainConfig) -> list[dict[str, Any]]:
    """Encoder and decoder with their own rates; weight decay for matrices alone."""
    groups = []
    for part, rate in ((model.encoder, config.encoder_lr), (model.decoder, config.decoder_lr)):
        parameters = list(part.parameters())
        groups += [
            {
                "params": [p for p in parameters if p.ndim > 1],
                "lr": rate,
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
        ]
    return groups


class _Progress:
    """Says a line now and then, from the first worker."""

    def __init__(self, board: Any, title: str, total: int, every_s: float = 10.0) -> None:
        self._board = board
        self._title = title
        self._total = total
        self._every_s = every_s
        self._started = self._shown = time.perf_counter()
        self._chief = ray.train.get_context().get_world_rank() == 0

    def show(self, totals: Tensor) -> None:
        now = time.perf_counter()
        if self._chief and now - self._shown >= self._every_s:
            self._shown = now
            loss, pictures, steps = totals.tolist()
            rate = pictures / (now - self._started)
            left = (self._total - steps) * (now - self._started) / max(steps, 1)
            self.say(f"loss {loss / max(pictures, 1):.3f}, {rate:.0f} pictures/s a worker, {left:.0f} s left")

    def say(self, text: str) -> None:
        if self._chief:
            self._board.say.remote(f"{self._title}: {text}")
