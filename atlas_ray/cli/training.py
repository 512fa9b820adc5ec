"""`train`, `tune` and `import-checkpoint`."""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atlas_ray.cli.command import EXIT_OK

if TYPE_CHECKING:
    from atlas_ray.training.settings import FusionTraining, TrainConfig


def add_train(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add the flags of `train` for a kind of model."""
    from atlas_ray.settings import add_flags
    from atlas_ray.training.settings import TRAININGS

    parser.add_argument("--config", metavar="FILE", help="a YAML file of the settings below; a flag wins over it")
    parser.add_argument("--fresh", action="store_true", help="delete an earlier run in the output and start anew")
    add_flags(parser, TRAININGS[kind])


def _training(options: argparse.Namespace) -> "TrainConfig":
    """Return a training's settings: those of the file, and over them the flags given."""
    from atlas_ray.settings import COMMAND_LINE, build_settings, given, read_settings
    from atlas_ray.training.settings import TRAININGS

    kind = TRAININGS[options.model_kind]
    file = read_settings(options.config) if options.config else {}
    return build_settings(kind, file, options.config or COMMAND_LINE, flags=given(options, kind))


def run_train(options: argparse.Namespace) -> int:
    """Train a model."""
    from atlas_ray.training.settings import FusionTraining

    config = _training(options)
    if isinstance(config, FusionTraining):
        return _run_train_fusion(config, fresh=options.fresh)

    from atlas_ray.metrics import FIGURES
    from atlas_ray.training.run import train

    report = train(config, fresh=options.fresh)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do (--fresh trains it anew)")
    print(f"model {report.model_id} in {report.output}")
    if refused := report.metrics["refused_examples"]:
        print(f"{refused:.0f} {config.examples} could not be used; see {report.output}/quarantine")
    _print_left_out(report.metrics)
    figure = next(name for name in FIGURES if name in report.metrics)
    if not report.metrics["val_examples"]:
        print(
            f"the last of {len(report.metrics['history'])} epochs: nothing labelled is in the split val to measure on; "
            f"curves in {report.output}/curves.png"
        )
        return EXIT_OK
    print(
        f"best epoch {report.metrics['epoch']} of {len(report.metrics['history'])}: validation {FIGURES[figure]} "
        f"{report.metrics[figure]:.4f} on {report.metrics['val_examples']:.0f} {config.examples}; "
        f"curves in {report.output}/curves.png"
    )
    return EXIT_OK


def _print_left_out(metrics: Mapping[str, Any]) -> None:
    if count := metrics.get("products_without_a_leaf"):
        label, most = next(iter(metrics["without_a_leaf"].items()))
        print(
            f"left out of training: {count} products of {metrics['labels_without_a_leaf']} labels that are no leaf "
            f"of the taxonomy, such as {label!r} ({most}); give them a leaf's path with `atlas-ray relabel`"
        )


def _run_train_fusion(config: "FusionTraining", *, fresh: bool) -> int:
    from atlas_ray.training.fusion import train_fusion

    report = train_fusion(config, fresh=fresh)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do (--fresh fits it anew)")
    print(f"model {report.model_id} in {report.output}")
    of_paths = "fit_accuracy" in report.metrics
    found = report.metrics["fit_accuracy" if of_paths else "fit_micro_f1"]
    shares = ", ".join(f"{name} {share:.4f}" for name, share in found.items())
    measure = "whole path right, of" if of_paths else "micro-F1 on"
    print(f"{measure} the {report.metrics['products']} products that it was fitted on: {shares}")
    for one in report.metrics.get("contests", ()):
        print(_contest(one, report.metrics["settings"]["policy"], str(report.metrics["judged_on"])))
    return EXIT_OK


def _contest(one: Mapping[str, Any], policy: str, judged_on: str) -> str:
    model, verdict = one["model"], "so the policy answers"
    if one["kept"]:
        verdict = f"so the {model}'s answer is kept wherever there is one"
    return (
        f"of {one['products']} {judged_on} products with a {model} the policy {policy} has {one['policy_right']:.4f} "
        f"right, the {model} alone {one['model_right']:.4f} ({one['won']} won, {one['lost']} lost), {verdict}"
    )


def add_train_zoom(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `train zoom`."""
    from atlas_ray.settings import add_flags
    from atlas_ray.zoom.settings import ZoomTraining

    add_flags(parser, ZoomTraining)


def run_train_zoom(options: argparse.Namespace) -> int:
    """Train the filter that tells zoomed pictures from normal ones."""
    from atlas_ray.settings import COMMAND_LINE, build_settings, given
    from atlas_ray.zoom.settings import ZoomTraining

    config = build_settings(ZoomTraining, given(options, ZoomTraining), COMMAND_LINE)

    from atlas_ray.reports.zoom import print_zoom
    from atlas_ray.zoom.training import train_zoom

    report = train_zoom(config)
    print_zoom(report.metrics)
    if refused := report.metrics["refused_pictures"]:
        print(f"{refused} pictures could not be used; see {report.output}/quarantine")
    print(f"model {report.model_id} in {report.output}")
    return EXIT_OK


def add_tune(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add the flags of `tune` for a kind of model."""
    from atlas_ray.settings import add_flags
    from atlas_ray.training.settings import TRAININGS, TuneConfig

    parser.add_argument("--config", metavar="FILE", help="a YAML file of the training's settings; a flag wins over it")
    add_flags(parser, TuneConfig)
    add_flags(parser, TRAININGS[kind])


def run_tune(options: argparse.Namespace) -> int:
    """Search good settings."""
    from atlas_ray.settings import COMMAND_LINE, build_settings, given
    from atlas_ray.training.settings import TuneConfig

    training = _training(options)
    search = build_settings(TuneConfig, given(options, TuneConfig), COMMAND_LINE)

    from atlas_ray.training.tune import tune

    report = tune(search, training)
    if report.already_done:
        print(f"{report.output} holds this search, finished; nothing to do")
    print(
        f"best of {len(report.trials)} trials: number {report.best['trial']}, validation accuracy "
        f"{report.best['val_accuracy']:.4f}; its model in {report.model}"
    )
    print(
        f"train with its settings: atlas-ray train {options.model_kind} --config {report.output}/best.yaml "
        f"--catalog {training.catalog} --output FOLDER"
    )
    return EXIT_OK


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calibrate`."""
    parser.add_argument("--model", required=True, help="the model; its temperature and its id change")
    parser.add_argument("--catalog", required=True, help="a catalogue with labelled products")
    parser.add_argument(
        "--split", default="val", choices=("val", "test", "train"), help="which of them (default: %(default)s)"
    )


def run_calibrate(options: argparse.Namespace) -> int:
    """Fit the temperature of a model's probabilities, and store it in the model."""
    from atlas_ray.evaluation.calibration import calibrate

    found = calibrate(options.model, options.catalog, split=options.split)
    print(f"model {found.model_id} in {options.model}: temperature {found.temperature:.3f}")
    print(
        f"expected calibration error of the whole path, on {found.products} products: {found.error_before:.4f} before, "
        f"{found.error_after:.4f} after"
    )
    if found.trained_on:
        print(
            f"the model was trained on {found.trained_on} of these products, where it is surer than elsewhere; "
            "calibrate on others with --split",
            file=sys.stderr,
        )
    elif found.trained_on is None:
        print(
            "not known whether the model was trained on these products: it was imported, or is older",
            file=sys.stderr,
        )
    if found.was_fitted_on:
        print(
            f"the policy was fitted on the split {options.split!r}, where it is surer than elsewhere; calibrate on "
            "another one with --split",
            file=sys.stderr,
        )
    return EXIT_OK


def add_import_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `import-checkpoint`."""
    parser.add_argument("checkpoint", help="the .pth.tar file; nothing in it is executed")
    parser.add_argument("--word-map", required=True, help="its WORDMAP_*.json")
    parser.add_argument("--taxonomy", required=True, help="what it predicts: a file, or the built-in atlas-52")
    parser.add_argument("--output", required=True, help="where the model goes")
    parser.add_argument(
        "--image-size-px", type=int, default=150, help="side of the pictures it was trained on (default: %(default)s)"
    )


def run_import_checkpoint(options: argparse.Namespace) -> int:
    """Turn a published Atlas checkpoint into a model."""
    from atlas_ray.artifacts.atlas_checkpoint import import_checkpoint
    from atlas_ray.errors import OutputError
    from atlas_ray.io import storage
    from atlas_ray.taxonomy import read_taxonomy

    if storage.exists(storage.join(options.output, "model.json")):
        raise OutputError(f"{options.output} holds a model; name another folder with --output")
    model_id = import_checkpoint(
        options.checkpoint,
        options.word_map,
        options.output,
        taxonomy=read_taxonomy(options.taxonomy),
        image_size_px=options.image_size_px,
    )
    print(f"model {model_id} in {options.output}")
    return EXIT_OK
