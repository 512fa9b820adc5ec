"""`tune MODEL`: a search of good settings for a training."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.cli.train import training_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add the flags of `tune` for a kind of model."""
    from atlas_ray.training.settings import TRAININGS, TuneConfig

    parser.add_argument("--config", metavar="FILE", help="YAML file of the training's settings; a flag overrides it")
    add_flags(parser, TuneConfig)
    add_flags(parser, TRAININGS[kind])


def run(options: argparse.Namespace) -> int:
    """Search good settings."""
    from atlas_ray.training.settings import TRAININGS, TuneConfig

    training = training_of(options, TRAININGS[options.model_kind])
    search = settings_of(options, TuneConfig)

    from atlas_ray.training.tune import figure_name, tune

    report = tune(search, training)
    if report.already_done:
        print(f"{report.output} holds this search, finished; nothing to do")
    print(
        f"best of {len(report.trials)} trials: number {report.best['trial']}, validation {figure_name(training)} "
        f"{report.best['val_accuracy']:.4f}; its model in {report.model}"
    )
    print(
        f"train with its settings: atlas-ray train {options.model_kind} --config {report.output}/best.yaml "
        f"--catalog {training.catalog} --output FOLDER"
    )
    return EXIT_OK
