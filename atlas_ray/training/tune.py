"""A search for good settings by trial trainings. Ray Tune ends those early that fall behind."""

import contextlib
import io
import logging
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray.tune
import yaml
from ray.tune.schedulers import ASHAScheduler

from atlas_ray.errors import CatalogError, ConfigError, OutputError, SearchError
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.models.fusion import POLICIES
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.settings import Domain, Range, pin_settings
from atlas_ray.taxonomy import read_taxonomy
from atlas_ray.training.data import labelled_pictures, labelled_texts
from atlas_ray.training.run import settings_of
from atlas_ray.training.settings import FusionTraining, ImageLabelsTraining, Training, TuneConfig
from atlas_ray.training.trial import Trial, trial_folder, trial_record

SPACE = {
    "encoder_lr": Range(1e-5, 3e-3, log=True),
    "decoder_lr": Range(1e-5, 1e-2, log=True),
    "weight_decay": Range(1e-5, 0.3, log=True),
    "dropout": Range(0.0, 0.7),
    "label_smoothing": Range(0.0, 0.2),
}
"""The ranges of the settings that are searched; a fusion policy has its own."""
HELD_OUT = 0.25
"""Share of the products that trials of a fusion are compared on, if the settings hold none out."""
BEST, ROWS, SETTINGS, STATE = "best.yaml", "trials.parquet", "tune.json", "ray-tune"


def space_of(training: Training) -> Mapping[str, Domain]:
    """Return the settings that are searched for a kind of training."""
    return POLICIES[training.policy].search_space if isinstance(training, FusionTraining) else SPACE


def rows_schema(training: Training) -> pa.Schema:
    """Return the schema of `trials.parquet`."""
    return pa.schema(
        [
            ("trial", pa.int32()),
            ("status", pa.string()),  # finished; stopped because it fell behind; failed
            ("val_accuracy", pa.float64()),  # of the best epoch; for a model of labels its micro-F1
            ("epochs", pa.int32()),
            *((name, pa.scalar(getattr(training, name)).type) for name in space_of(training)),
            ("reason", pa.string()),  # why it failed
        ]
    )


@dataclass(frozen=True)
class TuneReport:
    """The result of a search. Its output holds `best.yaml`, `trials.parquet` and the best trial's model."""

    output: str
    trials: list[dict[str, Any]]
    """The rows of `trials.parquet`."""
    best: dict[str, Any]
    """The best trial's row."""
    model: str
    """The folder of its model."""
    already_done: bool = False
    """Whether the output held a finished search of the same settings, so that nothing was done."""


@holding("tune", "training.output")
def tune(config: TuneConfig, training: Training) -> TuneReport:
    """Search the settings of `space_of` for the best accuracy on the validation split.

    Each trial is a training run. The first one has the given settings, so the best is never worse than those. Trials
    of a fusion, which is fitted on that split, are compared on a part of it that they do not learn from.

    The same call on an output that was stopped goes on: trials that ended are not run again, those that failed are.
    On a finished one it does nothing.

    Args:
        config: The settings of the search.
        training: The settings that are not searched. `best.yaml` in their output is a configuration of the training
            with the best settings.

    Raises:
        OutputError: if the output holds a search with other settings, or something else.
        CatalogError: if the catalogue has no labelled pictures in its validation split.
        SearchError: if no trial finished, with the reason of the first failure.
    """
    training = training.absolute()  # trials run in folders of their own
    output = training.output
    for name in ("products", "train.json", "model.json"):
        if storage.exists(storage.join(output, name)):
            raise OutputError(f"{output} holds something else than a search; tune into a folder of its own")
    held = settings_of(training) | asdict(config)
    del held["concurrent"]
    if done := storage.exists(storage.join(output, BEST)):
        pin_settings(output, SETTINGS, held)
    else:
        _check(training)
        pin_settings(output, SETTINGS, held)
        connect()
        rows = _search(config, training)
        storage.write_table(storage.join(output, ROWS), pa.Table.from_pylist(rows, schema=rows_schema(training)))
    rows = storage.read_table(storage.join(output, ROWS)).to_pylist()
    finished = [row for row in rows if row["status"] == "finished"]
    if not finished:
        reason = next((row["reason"] for row in rows if row["reason"]), "none")
        raise SearchError(f"none of {len(rows)} trials finished; why the first one failed: {reason}")
    best = max(finished, key=lambda row: row["val_accuracy"])
    if not done:
        _write_best(training, best, len(rows))
    for row in rows:
        if row is not best:
            storage.delete_folder(trial_folder(output, row["trial"]))
        storage.delete_file(trial_record(output, row["trial"]))
    return TuneReport(output, rows, best, trial_folder(output, best["trial"]), already_done=done)


def _check(training: Training) -> None:
    """Refuse settings with nothing to search, or with nothing to compare trials by."""
    if isinstance(training, FusionTraining):
        if not space_of(training):
            searched = ", ".join(name for name, policy in POLICIES.items() if policy.search_space)
            raise ConfigError(f"policy is {training.policy!r}, which has nothing to search; expected {searched}")
        return
    taxonomy = read_taxonomy(training.taxonomy or storage.join(training.catalog, "taxonomy.json"))
    if texts := training.of_texts:
        what, labelled = "products", labelled_texts(training.catalog, "val", taxonomy, texts.field)
    else:
        what, labelled = "pictures", labelled_pictures(training.catalog, "val", taxonomy)
    if not labelled.count:
        raise CatalogError(f"{training.catalog}: no labelled {what} in the split 'val' to compare trials by")


def figure_name(training: Training) -> str:
    """Return the name of the figure that trials are compared by."""
    labels = isinstance(training, ImageLabelsTraining) or getattr(training, "target", "path") == "labels"
    return "micro-F1" if labels else "accuracy"


def draw(config: TuneConfig, training: Training) -> list[dict[str, Any]]:
    """Return the settings of each trial: those given, then random ones, rounded to be readable."""
    rng = np.random.default_rng(config.search_seed)
    space = space_of(training)
    return [
        {name: getattr(training, name) for name in space},
        *(
            {name: _readable(_domain(values).sample(random_state=rng)) for name, values in space.items()}
            for _ in range(config.trials - 1)
        ),
    ]


def _domain(values: Domain) -> Any:
    if isinstance(values, tuple):
        return ray.tune.choice(values)
    low, high, whole = values.low, values.high, isinstance(values.low, int)
    if whole:  # Ray leaves the upper end out
        return (ray.tune.lograndint if values.log else ray.tune.randint)(int(low), int(high) + 1)
    return (ray.tune.loguniform if values.log else ray.tune.uniform)(low, high)


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return int(value) if isinstance(value, int | np.integer) else float(f"{value:.4g}")


def _search(config: TuneConfig, training: Training) -> list[dict[str, Any]]:
    """Run the trials; return their rows."""
    # Otherwise a first Ctrl-C would end the search as if it were complete. Failures are in the report.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    place = storage.locate(training.output)
    drawn = draw(config, training)
    if isinstance(training, FusionTraining) and not training.held_out:
        training = replace(training, held_out=HELD_OUT)
    display = ProgressDisplay("search", "trials")
    # Ray Train's workers reserve CPUs themselves; a trial only waits for them.
    trainable = ray.tune.with_resources(
        ray.tune.with_parameters(Trial, training=training, drawn=drawn, progress=display.actor), {"cpu": 0.001}
    )
    # Tune could resume from its own state of a stopped search, but that does not hold its scheduler's.
    storage.delete_folder(storage.join(training.output, STATE))
    tuner = ray.tune.Tuner(
        trainable,
        param_space={"trial": ray.tune.grid_search(list(range(1, config.trials + 1)))},
        tune_config=ray.tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            scheduler=ASHAScheduler(
                "epoch",
                max_t=training.epochs,
                grace_period=min(config.grace_epochs, training.epochs),
                reduction_factor=config.reduction,
            ),
            max_concurrent_trials=config.concurrent,
            trial_dirname_creator=lambda trial: str(trial.config["trial"]),
        ),
        run_config=ray.tune.RunConfig(
            name=STATE,
            storage_path=place.path,
            storage_filesystem=place.filesystem,
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),  # trainings have their own
            verbose=0,
        ),
    )
    # Tune prints a table even with verbose=0.
    with display, contextlib.redirect_stdout(io.StringIO()):
        grid = tuner.fit()
    storage.delete_folder(storage.join(training.output, STATE))
    rows = [_row(grid[position], drawn) for position in range(len(grid))]
    return sorted(rows, key=lambda row: row["trial"])


def _row(result: Any, drawn: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    # If a trial failed at its start, only the folder tells which one it was.
    number = int(posixpath.basename(result.path).partition("_")[0])
    metrics = result.metrics or {}
    status = "failed" if result.error else "finished" if metrics.get("finished") else "stopped"
    reason = str(result.error).strip().splitlines()[-1].removeprefix("atlas_ray.errors.") if result.error else None
    outcome = {"val_accuracy": metrics.get("val_accuracy"), "epochs": metrics.get("epoch", 0), "reason": reason}
    return {"trial": number, "status": status, **outcome, **drawn[number - 1]}


def _write_best(training: Training, best: Mapping[str, Any], trials: int) -> None:
    values = training.to_dict() | {name: best[name] for name in space_of(training)}
    values = {name: value for name, value in values.items() if name not in ("catalog", "output")}
    figure = f"validation {figure_name(training)} {best['val_accuracy']:.4f}"
    text = f"# Trial {best['trial']}, the best of {trials}: {figure}.\n"
    text += yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    storage.write_bytes(storage.join(training.output, BEST), text.encode())
