"""A training run: from a catalogue to an artifact, resumed where it was stopped."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from atlas_ray.artifacts import WORDS, load_artifact, load_words, save_artifact, save_words
from atlas_ray.errors import CatalogError, ConfigError, OutputError, TaxonomyError, tell
from atlas_ray.formats.fitted import TRAINED, Fitted
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.reports.curves import draw_curves
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import KEEP_MEMORY
from atlas_ray.settings import pin_settings
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary, format_path, read_taxonomy
from atlas_ray.training.data import (
    Labelled,
    common_words,
    labelled_pictures,
    labelled_texts,
    with_pixels,
    with_words,
)
from atlas_ray.training.loop import STATE_FILE, Plan, train_worker
from atlas_ray.training.mistakes import EndAtMistakes, raise_reason
from atlas_ray.training.networks import build_network, load_weights
from atlas_ray.training.settings import TextTraining, TrainConfig
from atlas_ray.training.tracker import EVENTS, mlflow_environment

CHECKPOINTS = "checkpoints"
SETTINGS = "train.json"
MOST_LISTED = 100
"""Labels that are no leaf, in the metrics."""
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


@holding("train", "config.output")
def train(config: TrainConfig, *, fresh: bool = False, callbacks: Sequence[Any] = ()) -> TrainReport:
    """Train a model and write its artifact.

    The same call on an output that was stopped goes on from its last checkpoint; on a finished one
    it does nothing. The artifact holds the epoch that was best on the validation split, by accuracy
    or of a model of labels by micro-F1 (the last one where there is no validation split), its metrics,
    `history.parquet` and `curves.png`.

    Args:
        config: The settings.
        fresh: Delete an earlier run in the output first.
        callbacks: Each a `ray.train.UserCallback`, which the controller of Ray Train calls at each report.

    Raises:
        OutputError: where the output holds a run with other settings, or something else.
        CatalogError: where the catalogue has no taxonomy, too few labelled pictures to train on, or of a
            model of labels no label that enough products have.
    """
    # Ray Train moves its workers to a folder of their own: no relative path would hold there.
    config = config.absolute()
    output = config.output
    settings = settings_of(config)
    if fresh:
        forget(output)
    if done := finished(output, settings):
        return done
    taxonomy = _taxonomy(config)
    environment = mlflow_environment()
    found = _labelled(config, "train", taxonomy, repeat_rare=config.balance == "sampling")
    for line in found.losses:
        tell(line)
    if found.count < config.batch_size:
        raise CatalogError(
            f"{config.catalog}: {found.count} labelled {config.examples} in the split 'train' "
            f"({found.unusable} products' labels are no leaves of the taxonomy), and a batch has {config.batch_size}; "
            + (f"train with --batch-size {_largest_batch(found.count)}" if found.count >= 4 else "label more products")
        )
    held_out = _labelled(config, "val", taxonomy)
    space = _space(config, taxonomy, found)
    words = _words(config, found)
    load_weights(build_network(config, taxonomy, words, space=space), config, words)  # fails here, not in a worker
    pin_settings(output, SETTINGS, settings)
    if words is not None:
        save_words(output, words)
    steps = found.count // config.batch_size
    plan = Plan(
        config, taxonomy.to_json(), steps, words,
        labels=space.names if space else (), leaf_counts=found.leaf_counts, environment=environment,
    )  # fmt: skip
    datasets = {
        "train": _stream(config, found, words, shuffle_seed=config.seed),
        "val": _stream(config, held_out, words, shuffle_seed=None),
    }
    state = fit(plan, datasets, callbacks)
    network = build_network(config, taxonomy, words, space=space)
    network.load_state_dict(state["best"]["network"])
    metrics = final_metrics(config, state) | left_out(found)
    write_history(config, state["history"])
    vocabulary = Vocabulary.of(taxonomy)
    model_id = save_artifact(
        output, network, vocabulary=vocabulary, taxonomy=taxonomy, metrics=metrics, words=words, labels=space,
        fitted=Fitted.of(found.products, TRAINED),
    )  # fmt: skip
    storage.delete_folder(storage.join(output, CHECKPOINTS))
    return TrainReport(model_id, output, metrics)


def left_out(found: Labelled) -> dict[str, Any]:
    """Return what metrics say of rows that are no product, and of products whose label is no leaf of the taxonomy."""
    labels = {format_path(path): count for path, count in found.inner.most_common(MOST_LISTED)}
    return {
        "products_without_a_leaf": found.unusable,
        "labels_without_a_leaf": len(found.inner),
        "without_a_leaf": labels,
        "unusable_rows": found.unusable_rows,
    }


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return what two tries of one run have to agree in."""
    settings = {"model": config.model, **config.to_dict()}
    return {name: value for name, value in settings.items() if name not in NOT_OF_THE_RESULT}


def fit(plan: Plan, datasets: dict[str, Any], callbacks: Sequence[Any] = ()) -> dict[str, Any]:
    """Run a plan on Ray Train, from its last checkpoint where it has one.

    Args:
        plan: What is trained, and how.
        datasets: `train` and `val`: rows of `inputs`, `label`, `name` and `refused`.
        callbacks: As in `train`.

    Returns:
        `history`, an epoch each; `best`, the weights (`network`) and `metrics` of the epoch that is
        kept; `resumed_at`, steps.

    Raises:
        ConfigError: where the device asked for is not there.
        CatalogError: where none of the examples can be used.
    """
    config = plan.config
    least, most = config.worker_range
    workers: Any = least if least == most else (least, most)
    use_gpu = uses_gpus(config, ray.cluster_resources().get("GPU", 0))
    place = storage.locate(config.output)
    display = ProgressDisplay("training", config.examples)
    trainer = _Trainer(
        train_worker,
        train_loop_config={"plan": plan, "board": display.board},
        datasets=datasets,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=place.path,
            storage_filesystem=place.filesystem,
            failure_config=FailureConfig(max_failures=10),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            callbacks=[EndAtMistakes(), *callbacks],  # type: ignore[list-item]  # Ray types its older class
            worker_runtime_env={"env_vars": KEEP_MEMORY},  # type: ignore[call-arg]  # Ray types its older class
        ),
    )
    try:
        with display:
            result = trainer.fit()
    except TrainingFailedError as error:
        raise_reason(error)
    except KeyboardInterrupt:
        trainer.end()
        raise
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(os.path.join(folder, STATE_FILE), map_location="cpu", weights_only=True)
    return state


def uses_gpus(config: TrainConfig, gpus: float) -> bool:
    """Decide whether workers train on GPUs, of which the cluster has so many now; tell where it has too few.

    Raises:
        ConfigError: where GPUs are asked for that cannot come, or normalizations over workers without GPUs.
    """
    least, most = config.worker_range
    if config.device == "cuda" and not gpus and "RAY_ADDRESS" not in os.environ:
        raise ConfigError("--device is 'cuda', but the Ray of this machine has no GPU")
    enough = config.device == "cuda" or (config.device == "auto" and gpus >= least)
    if config.of_pictures and config.of_pictures.sync_batch_norm and most > 1 and not enough:
        raise ConfigError("--sync-batch-norm is for workers on GPUs; PyTorch has no such normalization on CPUs")
    if config.device == "auto" and 0 < gpus < least:
        tell(
            f"training on CPUs: {least} workers are asked for, and there are GPUs for {int(gpus)}; give "
            f"--workers {int(gpus)}, or --device cuda to wait for more"
        )
    return enough


class _Trainer(TorchTrainer):
    """A trainer that a stop ends as it ends any other command."""

    _controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:
        """Keep Ray Train's handler of Ctrl-C away, which ends the process with code 0 or a traceback."""
        self._controller = controller

    def end(self) -> None:
        """End the controller, and with it the workers, which would go on writing otherwise."""
        if self._controller is not None:
            ray.kill(self._controller)


def _labelled(config: TrainConfig, split: str, taxonomy: Taxonomy, *, repeat_rare: bool = False) -> Labelled:
    if isinstance(config, TextTraining):
        return labelled_texts(config.catalog, split, taxonomy, config.field, repeat_rare=repeat_rare)
    return labelled_pictures(config.catalog, split, taxonomy, repeat_rare=repeat_rare)


def _space(config: TrainConfig, taxonomy: Taxonomy, found: Labelled) -> LabelSpace | None:
    """Return the labels that a model of labels is to name."""
    if config.label_products is None:
        return None
    try:
        return LabelSpace.common(taxonomy, found.leaf_products, config.label_products)
    except TaxonomyError as error:
        raise CatalogError(f"{config.catalog}, split 'train': {error}; lower --min-products") from None


def _words(config: TrainConfig, found: Labelled) -> WordIndex | None:
    """Return what a model of texts is to know: what an earlier try of this run chose, or the common words."""
    if not isinstance(config, TextTraining):
        return None
    if storage.exists(storage.join(config.output, WORDS)):
        return load_words(config.output, config.field)
    words = common_words(found, config.field, limit=config.max_words, min_count=config.min_count)
    if not words:
        raise CatalogError(
            f"{config.catalog}: no word stands in {config.min_count} or more of the {found.count} texts of the column "
            f"{config.field!r}, split 'train'"
        )
    return WordIndex(words, config.field)


def _stream(config: TrainConfig, rows: Labelled, words: WordIndex | None, *, shuffle_seed: int | None) -> Any:
    if words is not None:
        return with_words(rows, words, shuffle_seed=shuffle_seed)
    pictures = config.of_pictures
    assert pictures is not None
    limits = PictureLimits(min_side_px=pictures.min_side_px)
    return with_pixels(rows, pictures.image_size_px, limits, shuffle_seed=shuffle_seed)


def finished(output: str, settings: dict[str, Any]) -> TrainReport | None:
    """Return the report of a run that is done, and refuse an output of another origin."""
    if storage.exists(storage.join(output, "model.json")):
        if not storage.exists(storage.join(output, SETTINGS)):
            raise OutputError(f"{output} holds a model that was not trained here; train into a new folder")
        pin_settings(output, SETTINGS, settings)
        artifact = load_artifact(output, target=None)
        return TrainReport(artifact.id, output, artifact.metrics, already_done=True)
    if storage.exists(storage.join(output, "products")):
        raise OutputError(f"{output} holds a catalogue or a scoring run; train into a folder of its own")
    if storage.exists(storage.join(output, SETTINGS)):
        pin_settings(output, SETTINGS, settings)
    return None


def forget(output: str) -> None:
    """Delete what a run leaves, and nothing else."""
    if not storage.exists(storage.join(output, SETTINGS)):
        return
    for name in (
        "model.json", "taxonomy.json", "metrics.json", "weights.safetensors", WORDS, "history.parquet", "curves.png",
        SETTINGS,
    ):  # fmt: skip
        storage.delete_file(storage.join(output, name))
    for name in (CHECKPOINTS, EVENTS, "quarantine"):
        storage.delete_folder(storage.join(output, name))


def _largest_batch(count: int) -> int:
    """Return the largest power of two that is no more than `count`."""
    return 1 << (count.bit_length() - 1)


def _taxonomy(config: TrainConfig) -> Taxonomy:
    if config.taxonomy:
        return read_taxonomy(config.taxonomy)
    uri = storage.join(config.catalog, "taxonomy.json")
    if not storage.exists(uri):
        raise CatalogError(
            f"{config.catalog} holds no taxonomy.json (no product is labelled); name one with --taxonomy"
        )
    return read_taxonomy(uri)


def final_metrics(config: TrainConfig, state: dict[str, Any]) -> dict[str, Any]:
    """Return what an artifact says of its training, from what `fit` returned."""
    history, best = state["history"], state["best"]
    return {
        **{name: value for name, value in best["metrics"].items() if name.startswith("val_")},
        "epoch": best["metrics"]["epoch"],
        "train_loss": best["metrics"]["train_loss"],
        "refused_examples": history[0]["refused_examples"],
        "resumed_at_steps": state["resumed_at"],
        "settings": {"model": config.model, **config.to_dict()},
        "history": history,
    }


def write_history(config: TrainConfig, history: list[dict[str, Any]]) -> None:
    """Write `history.parquet` and `curves.png` into the output."""
    storage.write_table(storage.join(config.output, "history.parquet"), pa.Table.from_pylist(history))
    storage.write_bytes(storage.join(config.output, "curves.png"), draw_curves(history, config.title_of_run))
