"""A training run: from a catalogue to an artifact, resumed where it was stopped."""

import io
import json
import os
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
from atlas_ray.artifacts import save_artifact
from atlas_ray.errors import CatalogError, OutputError
from atlas_ray.models import EncoderDecoder
from atlas_ray.models.backbone import Backbone, load_backbone_weights
from atlas_ray.progress import ProgressDisplay
from atlas_ray.taxonomy import Taxonomy, Vocabulary, read_taxonomy
from atlas_ray.training.config import TrainConfig
from atlas_ray.training.data import decoded, labelled_pictures
from atlas_ray.training.loop import STATE_FILE, Plan, train_worker

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainReport:
    """What a run left."""

    model_id: str
    output: str
    metrics: dict[str, Any]
    """The final metrics; `history` holds those of each epoch."""


def train(config: TrainConfig) -> TrainReport:
    """Train an encoder-decoder and write its artifact.

    The same call on an output that was stopped goes on from its last checkpoint. The artifact
    holds the epoch with the best accuracy on the validation split (the last one where there is no
    validation split), its metrics, and `history.parquet`.

    Raises:
        OutputError: where the output holds a finished model, or a run with other settings.
        CatalogError: where the catalogue has no taxonomy or too few labelled pictures to train on.
    """
    # Ray Train moves its workers to a folder of their own: no relative path would hold there.
    weights = config.weights if config.weights in ("none", "imagenet") else storage.absolute(config.weights)
    output, catalog = storage.absolute(config.output), storage.absolute(config.catalog)
    config = replace(config, output=output, catalog=catalog, weights=weights)
    if storage.exists(storage.join(output, "model.json")):
        raise OutputError(f"{output} holds a finished model; train into a new folder, or delete it")
    if storage.exists(storage.join(output, "products")):
        raise OutputError(f"{output} holds a catalogue or a scoring run; train into a folder of its own")
    taxonomy = _taxonomy(config)
    load_backbone_weights(Backbone(config.backbone), config.backbone, config.weights)  # fails here, not in a worker
    pictures = {split: labelled_pictures(config.catalog, split, taxonomy) for split in ("train", "val")}
    found = pictures["train"]
    if found.count < config.batch_size:
        raise CatalogError(
            f"{config.catalog}: {found.count} labelled pictures in the split 'train' "
            f"({found.unusable} products' labels are no leaves of the taxonomy); a batch needs {config.batch_size}"
        )
    plan = Plan(
        config,
        taxonomy.to_json(),
        found.count // config.workers // (config.batch_size // config.workers),
    )
    use_gpu = ray.cluster_resources().get("GPU", 0) >= config.workers
    place = storage.locate(output)
    display = ProgressDisplay("training", "pictures")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"plan": plan, "board": display.board},
        datasets={
            "train": decoded(found, config.image_size_px, shuffle_seed=config.seed),
            "val": decoded(pictures["val"], config.image_size_px, shuffle_seed=None),
        },
        scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=place.path,
            storage_filesystem=place.filesystem,
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=2,
                checkpoint_score_attribute="val_accuracy",
                checkpoint_score_order="max",
            ),
        ),
    )
    with display:
        result = trainer.fit()
    if result.error is not None:
        raise result.error
    return _finish(config, output, taxonomy, result, found.unusable)


def _taxonomy(config: TrainConfig) -> Taxonomy:
    if config.taxonomy:
        return read_taxonomy(config.taxonomy)
    uri = storage.join(config.catalog, "taxonomy.json")
    if not storage.exists(uri):
        raise CatalogError(
            f"{config.catalog} holds no taxonomy.json (no product is labelled); name one with --taxonomy"
        )
    return read_taxonomy(uri)


def _hold_settings(config: TrainConfig, output: str) -> None:
    """Keep the settings beside the run, and refuse to go on with others."""
    uri = storage.join(output, "train.json")
    settings = {name: value for name, value in config.to_dict().items() if name != "output"}
    if storage.exists(uri):
        before = json.loads(storage.read_bytes(uri))
        for name, value in settings.items():
            if before.get(name) != value:
                raise OutputError(
                    f"{output} holds a run with {name} = {before.get(name)!r}, this one has {value!r}; "
                    "train into a new folder, or with the same settings"
                )
    else:
        storage.write_bytes(uri, json.dumps(settings, indent=1).encode())


def _finish(config: TrainConfig, output: str, taxonomy: Taxonomy, result: Any, unusable: int) -> TrainReport:
    """Write the artifact of the best epoch, then drop the checkpoints."""

    def load(checkpoint: Any) -> dict[str, Any]:
        with checkpoint.as_directory() as folder:
            return dict(torch.load(os.path.join(folder, STATE_FILE), map_location="cpu", weights_only=True))

    history = load(result.checkpoint)["history"]
    validated = [(checkpoint, metrics) for checkpoint, metrics in result.best_checkpoints if metrics["val_pictures"]]
    best, metrics = max(
        validated,
        key=lambda item: item[1]["val_accuracy"],
        default=(result.checkpoint, history[-1]),
    )
    vocabulary = Vocabulary.of(taxonomy)
    _hold_settings(config, output)
    plan = Plan(config, taxonomy.to_json(), 0)
    model = EncoderDecoder(plan.model_config(vocabulary))
    model.load_state_dict(load(best)["model"])
    final = {
        "epoch": metrics["epoch"],
        **{name: value for name, value in metrics.items() if name.startswith("val_")},
        "train_loss": metrics["train_loss"],
        "refused_pictures": history[0]["refused_pictures"],
        "products_without_a_leaf": unusable,
        "settings": config.to_dict(),
        "history": history,
    }
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(history), buffer)
    storage.write_bytes(storage.join(output, "history.parquet"), buffer.getvalue())
    model_id = save_artifact(output, model, vocabulary=vocabulary, taxonomy=taxonomy, metrics=final)
    storage.delete_folder(storage.join(output, CHECKPOINTS))
    return TrainReport(model_id, output, final)
