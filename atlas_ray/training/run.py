"""A training run: from a catalogue to an artifact, resumed where it was stopped."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from atlas_ray import storage
from atlas_ray.artifacts import load_artifact, save_artifact
from atlas_ray.config import hold_settings
from atlas_ray.errors import CatalogError, ConfigError, OutputError
from atlas_ray.models.backbone import Backbone, load_backbone_weights
from atlas_ray.progress import ProgressDisplay
from atlas_ray.reports.curves import draw_curves
from atlas_ray.session import KEEP_MEMORY
from atlas_ray.taxonomy import Taxonomy, Vocabulary, read_taxonomy
from atlas_ray.training.config import TrainConfig
from atlas_ray.training.data import decoded, labelled_pictures
from atlas_ray.training.loop import STATE_FILE, Plan, train_worker
from atlas_ray.training.objectives import build_network
from atlas_ray.training.tracker import EVENTS, mlflow_environment

CHECKPOINTS = "checkpoints"
SETTINGS = "train.json"
NOT_OF_THE_RESULT = ("output", "workers", "device", "checkpoint_steps", "compile")
"""Settings that a stopped run may go on with other values of."""


@dataclass(frozen=True)
class TrainReport:
    """What a run left."""

    model_id: str
    output: str
    metrics: dict[str, Any]
    """The final metrics; `history` holds those of each epoch."""
    already_done: bool = False
    """The output held the finished run of the same settings, and nothing was done."""


def train(config: TrainConfig, *, fresh: bool = False, callbacks: Sequence[Any] = ()) -> TrainReport:
    """Train a model and write its artifact.

    The same call on an output that was stopped goes on from its last checkpoint; on a finished one
    it does nothing. The artifact holds the epoch with the best accuracy on the validation split (the
    last one where there is no validation split), its metrics, `history.parquet` and `curves.png`.

    Args:
        config: The settings.
        fresh: Delete an earlier run in the output first.
        callbacks: What Ray Train's controller calls at each report: `ray.train.UserCallback`s.

    Raises:
        OutputError: where the output holds a run with other settings, or something else.
        CatalogError: where the catalogue has no taxonomy or too few labelled pictures to train on.
    """
    # Ray Train moves its workers to a folder of their own: no relative path would hold there.
    weights = config.weights if config.weights in ("none", "imagenet") else storage.absolute(config.weights)
    output, catalog = storage.absolute(config.output), storage.absolute(config.catalog)
    config = replace(config, output=output, catalog=catalog, weights=weights)
    settings = {"model": config.model, **config.to_dict()}
    settings = {name: value for name, value in settings.items() if name not in NOT_OF_THE_RESULT}
    if fresh:
        _forget(output)
    if done := _finished(output, settings):
        return done
    taxonomy = _taxonomy(config)
    load_backbone_weights(Backbone(config.backbone), config.backbone, config.weights)  # fails here, not in a worker
    environment = mlflow_environment()
    found = labelled_pictures(config.catalog, "train", taxonomy, repeat_rare=config.balance == "sampling")
    if found.count < config.batch_size:
        raise CatalogError(
            f"{config.catalog}: {found.count} labelled pictures in the split 'train' "
            f"({found.unusable} products' labels are no leaves of the taxonomy); a batch needs {config.batch_size}"
        )
    held_out = labelled_pictures(config.catalog, "val", taxonomy)
    hold_settings(output, SETTINGS, settings)
    least, most = config.worker_range
    workers: Any = least if least == most else (least, most)
    plan = Plan(config, taxonomy.to_json(), found.count // config.batch_size, found.leaf_counts, environment)
    gpus = ray.cluster_resources().get("GPU", 0)
    if config.device == "cuda" and not gpus and "RAY_ADDRESS" not in os.environ:
        raise ConfigError("device is 'cuda', but the Ray of this machine has no GPU")
    use_gpu = config.device == "cuda" or (config.device == "auto" and gpus >= least)
    place = storage.locate(output)
    display = ProgressDisplay("training", "pictures")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"plan": plan, "board": display.board},
        datasets={
            "train": decoded(found, config.image_size_px, shuffle_seed=config.seed),
            "val": decoded(held_out, config.image_size_px, shuffle_seed=None),
        },
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=place.path,
            storage_filesystem=place.filesystem,
            failure_config=FailureConfig(max_failures=10),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            callbacks=list(callbacks),
            worker_runtime_env={"env_vars": KEEP_MEMORY},  # type: ignore[call-arg]  # Ray types its older class
        ),
    )
    with display:
        result = trainer.fit()
    if result.error is not None:
        raise result.error
    return _finish(config, output, taxonomy, result, found.unusable)


def _finished(output: str, settings: dict[str, Any]) -> TrainReport | None:
    """Return the report of a run that is done, and refuse an output of another origin."""
    if storage.exists(storage.join(output, "model.json")):
        if not storage.exists(storage.join(output, SETTINGS)):
            raise OutputError(f"{output} holds a model that was not trained here; train into a new folder")
        hold_settings(output, SETTINGS, settings)
        artifact = load_artifact(output)
        return TrainReport(artifact.id, output, artifact.metrics, already_done=True)
    if storage.exists(storage.join(output, "products")):
        raise OutputError(f"{output} holds a catalogue or a scoring run; train into a folder of its own")
    if storage.exists(storage.join(output, SETTINGS)):
        hold_settings(output, SETTINGS, settings)
    return None


def _forget(output: str) -> None:
    """Delete what a run leaves, and nothing else."""
    if not storage.exists(storage.join(output, SETTINGS)):
        return
    for name in (
        "model.json", "taxonomy.json", "metrics.json", "weights.safetensors", "history.parquet", "curves.png", SETTINGS
    ):  # fmt: skip
        storage.delete_file(storage.join(output, name))
    for name in (CHECKPOINTS, EVENTS, "quarantine"):
        storage.delete_folder(storage.join(output, name))


def _taxonomy(config: TrainConfig) -> Taxonomy:
    if config.taxonomy:
        return read_taxonomy(config.taxonomy)
    uri = storage.join(config.catalog, "taxonomy.json")
    if not storage.exists(uri):
        raise CatalogError(
            f"{config.catalog} holds no taxonomy.json (no product is labelled); name one with --taxonomy"
        )
    return read_taxonomy(uri)


def _finish(config: TrainConfig, output: str, taxonomy: Taxonomy, result: Any, unusable: int) -> TrainReport:
    """Write the artifact of the best epoch, then drop the checkpoints."""
    with result.checkpoint.as_directory() as folder:
        state = torch.load(os.path.join(folder, STATE_FILE), map_location="cpu", weights_only=True)
    history, best = state["history"], state["best"]
    network = build_network(config, taxonomy)
    network.load_state_dict(best["network"])
    final = {
        **{name: value for name, value in best["metrics"].items() if name.startswith("val_")},
        "epoch": best["metrics"]["epoch"],
        "train_loss": best["metrics"]["train_loss"],
        "refused_pictures": history[0]["refused_pictures"],
        "products_without_a_leaf": unusable,
        "resumed_at_steps": state["resumed_at"],
        "settings": {"model": config.model, **config.to_dict()},
        "history": history,
    }
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(history), buffer)
    storage.write_bytes(storage.join(output, "history.parquet"), buffer.getvalue())
    storage.write_bytes(storage.join(output, "curves.png"), draw_curves(history, f"{config.model}, {config.backbone}"))
    vocabulary = Vocabulary.of(taxonomy)
    model_id = save_artifact(output, network, vocabulary=vocabulary, taxonomy=taxonomy, metrics=final)
    storage.delete_folder(storage.join(output, CHECKPOINTS))
    return TrainReport(model_id, output, final)
