"""A training run, which makes an artifact of a catalogue and is resumed after a stop."""

import functools
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

from atlas_ray.artifacts import TOKENS, WORDS, load_artifact, load_words, save_artifact, save_index
from atlas_ray.errors import CatalogError, ConfigError, OutputError, TaxonomyError, tell
from atlas_ray.formats.fitted import TRAINED, Fitted
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.modalities.tokens import TextIndex
from atlas_ray.reports.curves import draw_curves
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import MALLOC_ENV, warn_of_local_paths
from atlas_ray.settings import pin_settings
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary, format_path, read_taxonomy
from atlas_ray.taxonomy.labels import Targets
from atlas_ray.training.cache import Cached, check_room
from atlas_ray.training.data import (
    EachStart,
    Labelled,
    block_rows,
    labelled_pictures,
    labelled_texts,
    with_pixels,
    with_words,
)
from atlas_ray.training.loop import STATE_FILE, Plan, train_worker
from atlas_ray.training.mistakes import EndAtMistakes, raise_reason
from atlas_ray.training.networks import build_network, load_weights, sentence_encoder_of, sentence_shape
from atlas_ray.training.settings import EncoderTraining, RunSettings, TrainConfig
from atlas_ray.training.tracker import EVENTS, mlflow_environment
from atlas_ray.training.words import common_words, vector_coverage

CHECKPOINTS = "checkpoints"
SETTINGS = "train.json"
MAY_CHANGE = (RunSettings.__dataclass_fields__.keys() - {"catalog"}) | {"cache"}
"""Settings that may differ when a stopped run is resumed."""
GPU_SHARE = 128
"""Pictures of a batch that keep a GPU busy: the default of one worker."""
MAX_LISTED = 100
"""The most labels that are not leaves, which the metrics list."""


@dataclass(frozen=True)
class TrainReport:
    """The result of a run."""

    model_id: str
    output: str
    metrics: dict[str, Any]
    """The final metrics; `history` holds those of each epoch."""
    already_done: bool = False
    """Whether the output held a finished run of the same settings, so that nothing was done."""


@holding("train", "config.output")
def train(config: EncoderTraining, *, fresh: bool = False, callbacks: Sequence[Any] = ()) -> TrainReport:
    """Train a model and write its artifact.

    The same call on an output that was stopped goes on from its last checkpoint; on a finished one it does nothing.
    The artifact holds the epoch that was best on the validation split, by accuracy or for a model of labels by
    micro-F1 (the last epoch if there is no validation split), its metrics, `history.parquet` and `curves.png`.

    Args:
        config: The settings.
        fresh: Delete an earlier run in the output first.
        callbacks: Objects of `ray.train.UserCallback`, which Ray Train's controller calls at each report.

    Raises:
        OutputError: if the output holds a run with other settings, or something else.
        CatalogError: if the catalogue has no taxonomy, too few labelled pictures to train on, or for a model of
            labels no label that enough products have.
    """
    # Ray Train's workers run in another folder, in which relative paths do not hold.
    config = config.absolute()
    output = config.output
    settings, encoder = settings_of(config), sentence_encoder_of(config)
    if encoder is not None:
        settings["encoder_id"] = encoder.id
    if fresh:
        forget(output)
    if done := finished(output, settings):
        return done
    taxonomy = taxonomy_of(config.taxonomy, config.catalog)
    environment = mlflow_environment()
    labelled = _labelled(config, "train", taxonomy, repeat_rare=config.balance == "sampling")
    for line in labelled.losses:
        tell(line)
    if (count := labelled.count) < config.batch_size:
        raise CatalogError(
            f"{config.catalog}: {count} labelled {config.examples} in the split 'train' ({labelled.unusable} products' "
            f"labels cannot be learned), and a batch has {config.batch_size}; "
            + (f"train with --batch-size {_largest_batch(count)}" if count >= 4 else "label more products")
        )
    validation = _labelled(config, "val", taxonomy)
    space = _space(config, taxonomy, labelled)
    words = encoder.tokens if encoder else _words(config, labelled)
    shape = sentence_shape(config, encoder, taxonomy, space) if encoder else None
    coverage = _fill(build_network(config, taxonomy, words, shape, space), config, labelled, words)
    pin_settings(output, SETTINGS, settings)
    if words is not None:
        save_index(output, words)
    plan = Plan(
        config, taxonomy.to_json(), count // config.batch_size, words, shape,
        labels=space.names if space else (), leaf_counts=labelled.leaf_counts, above=labelled.above,
        environment=environment,
    )  # fmt: skip
    has = space.targets(taxonomy.leaves) if space else None  # (leaves, labels)
    splits = {"train": labelled, "val": validation}
    read: dict[str, Any] = {name: functools.partial(_stream, config, rows, words, has) for name, rows in splits.items()}
    if config.of_pictures and config.of_pictures.cache:
        total = labelled.count + validation.count
        check_room(total, config.of_pictures.image_size_px)
        tell(f"decoding {total} pictures into shared memory")
        read = {
            name: Cached(stream(shuffle_seed=None), block_rows(config.batch_size)).read for name, stream in read.items()
        }
    datasets = {"train": read["train"], "val": read["val"](shuffle_seed=None)}
    state = fit(plan, datasets, callbacks)
    network = build_network(config, taxonomy, words, shape, space)
    network.load_state_dict(state["best"]["network"])
    metrics = final_metrics(config, state) | left_out(labelled) | coverage
    write_history(config, state["history"])
    vocabulary = Vocabulary.of(taxonomy)
    model_id = save_artifact(
        output, network, vocabulary=vocabulary, taxonomy=taxonomy, metrics=metrics, words=words, labels=space,
        fitted=Fitted.of(labelled.products, TRAINED),
    )  # fmt: skip
    storage.delete_folder(storage.join(output, CHECKPOINTS))
    return TrainReport(model_id, output, metrics)


def left_out(labelled: Labelled) -> dict[str, Any]:
    """Return the metrics about rows without a key, labels above the leaf, and labels that cannot be learned."""
    labels = {format_path(path): count for path, count in labelled.inner.most_common(MAX_LISTED)}
    return {
        "examples_above_leaf": labelled.above,
        "products_without_a_leaf": labelled.unusable,
        "labels_without_a_leaf": len(labelled.inner),
        "without_a_leaf": labels,
        "unusable_rows": labelled.unusable_rows,
    }


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that have to be the same when a run is resumed."""
    settings = {"model": config.model, **config.to_dict()}
    return {name: value for name, value in settings.items() if name not in MAY_CHANGE}


def fit(plan: Plan, datasets: dict[str, Any], callbacks: Sequence[Any] = ()) -> dict[str, Any]:
    """Run a plan on Ray Train, from its last checkpoint if it has one.

    Args:
        plan: The task of the workers.
        datasets: `train`, a function that returns it given `shuffle_seed`, and `val`, with the columns `inputs`,
            `label`, `name` and `refused`.
        callbacks: As in `train`.

    Returns:
        `history`, the metrics of each epoch; `best`, the weights (`network`) and `metrics` of the epoch that is kept;
        `resumed_at`, the steps at which it was resumed.

    Raises:
        ConfigError: if the cluster does not have the device.
        CatalogError: if none of the examples can be used.
    """
    config = plan.config
    least, most = config.worker_range
    workers: Any = least if least == most else (least, most)
    warn_of_local_paths(config.output, config.catalog)
    use_gpu = uses_gpus(config, ray.cluster_resources().get("GPU", 0))
    if use_gpu and (advice := share_advice(config)):
        tell(advice)
    place = storage.locate(config.output)
    goes_on = storage.exists(storage.join(config.output, CHECKPOINTS))
    datasets = datasets | {"train": EachStart(datasets["train"], config.seed, goes_on=goes_on)}
    display = ProgressDisplay("training", config.examples)
    trainer = _Trainer(
        train_worker,
        train_loop_config={"plan": plan, "progress": display.actor},
        datasets=datasets,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=use_gpu,
            resources_per_worker=_of_a_gpu(ray.cluster_resources().get("CPU", 0), most) if use_gpu else None,
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=place.path,
            storage_filesystem=place.filesystem,
            failure_config=FailureConfig(max_failures=10),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            callbacks=[EndAtMistakes(), *callbacks],  # type: ignore[list-item]  # Ray types its older class
            worker_runtime_env={"env_vars": {} if use_gpu else MALLOC_ENV},  # type: ignore[call-arg]  # Ray types its older class
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
    """Decide whether workers train on GPUs, given the number in the cluster; print a line if there are too few.

    Raises:
        ConfigError: if the machine has no GPU and the device is cuda, or normalizations over workers need GPUs.
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


def _of_a_gpu(cpus: float, workers: int) -> dict[str, float]:
    """Return what a worker on a GPU reserves: two CPUs beside it, which decoding would take, where there are enough."""
    return {"GPU": 1, "CPU": 2} if cpus >= 2 * 2 * workers else {"GPU": 1}


def share_advice(config: TrainConfig) -> str | None:
    """Return what to change where each GPU would get so few pictures of a batch that exchanging gradients takes longer.

    The rates grow with the square root of the batch, as for Adam (Malladi et al. 2022, "On the SDEs and Scaling Rules
    for Adaptive Gradient Algorithms"), and a schedule that starts slowly bears them.
    """
    _, gpus = config.worker_range
    share = config.batch_size // gpus
    if gpus < 2 or share >= GPU_SHARE // 2 or (pictures := config.of_pictures) is None:
        return None
    batch = GPU_SHARE * gpus
    grown = (batch / config.batch_size) ** 0.5
    rates = f"--encoder-lr {pictures.encoder_lr * grown:.2g} --decoder-lr {pictures.decoder_lr * grown:.2g}"
    schedule = "" if config.schedule == "one-cycle" else " --schedule one-cycle"
    return (
        f"each of {gpus} GPUs gets {share} pictures of a batch of {config.batch_size}, too few to keep it busy; "
        f"for {gpus} try --batch-size {batch} {rates}{schedule}"
    )


class _Trainer(TorchTrainer):
    """A trainer that Ctrl-C ends as it ends any other command."""

    _controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:
        """Do not install Ray Train's handler of Ctrl-C, which ends the process with code 0 or a traceback."""
        self._controller = controller

    def end(self) -> None:
        """End the controller and with it the workers, which would otherwise go on writing."""
        if self._controller is not None:
            ray.kill(self._controller)


def _labelled(config: EncoderTraining, split: str, taxonomy: Taxonomy, *, repeat_rare: bool = False) -> Labelled:
    options = {"several": config.label_products is not None, "repeat_rare": repeat_rare}
    if texts := config.of_texts:
        return labelled_texts(config.catalog, split, taxonomy, texts.field, **options)
    return labelled_pictures(config.catalog, split, taxonomy, **options)


def _space(config: EncoderTraining, taxonomy: Taxonomy, labelled: Labelled) -> LabelSpace | None:
    """Return the labels of a model of labels."""
    if config.label_products is None:
        return None
    try:
        return LabelSpace.common(taxonomy, labelled.label_products, config.label_products)
    except TaxonomyError as error:
        raise CatalogError(f"{config.catalog}, split 'train': {error}; lower --min-products") from None


def _words(config: EncoderTraining, labelled: Labelled) -> WordIndex | None:
    """Return the vocabulary of a model of texts: that of an earlier try of this run, or the common words."""
    texts = config.of_texts
    if texts is None:
        return None
    if storage.exists(storage.join(texts.output, WORDS)):
        return load_words(texts.output, texts.field)
    words = common_words(labelled, texts.field, limit=texts.max_words, min_count=texts.min_count)
    if not words:
        raise CatalogError(
            f"{texts.catalog}: no word is in {texts.min_count} or more of the {labelled.count} texts of the column "
            f"{texts.field!r}, split 'train'"
        )
    return WordIndex(words, texts.field)


def _fill(network: Any, config: EncoderTraining, labelled: Labelled, words: TextIndex | None) -> dict[str, float]:
    """Fill a network as each worker will, so that it fails here; return how much of the texts has a word vector."""
    found = load_weights(network, config, words)
    if found is None or not isinstance(words, WordIndex):
        return {}
    coverage = vector_coverage(labelled, words, found)
    tell(
        f"{coverage['words_with_vectors']:.1%} of the vocabulary's words have a vector, and "
        f"{coverage['tokens_with_vectors']:.1%} of all words of the training texts"
    )
    return coverage


def _stream(
    config: EncoderTraining, rows: Labelled, words: TextIndex | None, has: Targets | None, *, shuffle_seed: int | None
) -> Any:
    taken = block_rows(config.batch_size)
    if words is not None:
        return with_words(rows, words, has, shuffle_seed=shuffle_seed, rows=taken)
    pictures = config.of_pictures
    assert pictures is not None
    limits = PictureLimits(min_side_px=pictures.min_side_px)
    return with_pixels(rows, pictures.image_size_px, limits, has, shuffle_seed=shuffle_seed, rows=taken)


def finished(output: str, settings: dict[str, Any]) -> TrainReport | None:
    """Return the report of a finished run, and refuse an output of another origin."""
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
    """Delete the files of a run, and nothing else."""
    if not storage.exists(storage.join(output, SETTINGS)):
        return
    for name in (
        "model.json", "taxonomy.json", "metrics.json", "weights.safetensors", WORDS, TOKENS, "history.parquet",
        "curves.png", SETTINGS,
    ):  # fmt: skip
        storage.delete_file(storage.join(output, name))
    for name in (CHECKPOINTS, EVENTS, "quarantine"):
        storage.delete_folder(storage.join(output, name))


def _largest_batch(count: int) -> int:
    """Return the largest power of two up to `count`."""
    return 1 << (count.bit_length() - 1)


def taxonomy_of(taxonomy: str | None, catalog: str) -> Taxonomy:
    """Read the taxonomy of the settings, or a catalogue's own.

    Raises:
        CatalogError: if the catalogue has none.
    """
    if taxonomy:
        return read_taxonomy(taxonomy)
    uri = storage.join(catalog, "taxonomy.json")
    if not storage.exists(uri):
        raise CatalogError(f"{catalog} holds no taxonomy.json (no product is labelled); name one with --taxonomy")
    return read_taxonomy(uri)


def final_metrics(config: TrainConfig, state: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of an artifact, from the result of `fit`."""
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
