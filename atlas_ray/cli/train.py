"""`train MODEL`: the models that learn from a catalogue by epochs."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from atlas_ray.cli.command import EXIT_OK
from atlas_ray.settings import COMMAND_LINE, add_flags, build_settings, flags_given, read_settings

if TYPE_CHECKING:
    from atlas_ray.training.run import TrainReport

Config = TypeVar("Config")


def flags(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add the flags of `train` for a kind of model."""
    from atlas_ray.training.settings import TRAININGS

    parser.add_argument("--config", metavar="FILE", help="YAML file of the settings below; a flag overrides it")
    parser.add_argument("--fresh", action="store_true", help="delete an earlier run in the output and start again")
    add_flags(parser, TRAININGS[kind])


def training_of(options: argparse.Namespace, kind: type[Config]) -> Config:
    """Return a training's settings: those of the file, and over them the flags given."""
    file = read_settings(options.config) if options.config else {}
    return build_settings(kind, file, options.config or COMMAND_LINE, flags=flags_given(options, kind))


def run(options: argparse.Namespace) -> int:
    """Train a model."""
    from atlas_ray.training.settings import TRAININGS

    config = training_of(options, TRAININGS[options.model_kind])

    from atlas_ray.training.run import train

    report = train(config, fresh=options.fresh)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do (--fresh trains it anew)")
    print(f"model {report.model_id} in {report.output}")
    if refused := report.metrics["refused_examples"]:
        print(f"{refused:.0f} {config.examples} could not be used; see {report.output}/quarantine")
    print_labels(report.metrics, config.examples)
    print_best(report, config.examples)
    return EXIT_OK


def print_best(report: "TrainReport", examples: str) -> None:
    """Print which epoch a training kept, and how good it is.

    Args:
        report: The result of the training.
        examples: What it learned from, in the plural.
    """
    from atlas_ray.metrics import FIGURES

    figure = next(name for name in FIGURES if name in report.metrics)
    if not report.metrics["val_examples"]:
        print(
            f"the last of {len(report.metrics['history'])} epochs: nothing labelled is in the split val to measure on; "
            f"curves in {report.output}/curves.png"
        )
        return
    print(
        f"best epoch {report.metrics['epoch']} of {len(report.metrics['history'])}: validation {FIGURES[figure]} "
        f"{report.metrics[figure]:.4f} on {report.metrics['val_examples']:.0f} {examples}; "
        f"curves in {report.output}/curves.png"
    )


def print_labels(metrics: Mapping[str, Any], examples: str) -> None:
    """Print how many examples are labelled above the leaf, and which labels could not be learned.

    Args:
        metrics: The metrics of a training.
        examples: What it learned from, in the plural.
    """
    if above := metrics.get("examples_above_leaf"):
        print(f"{above} {examples} are labelled above the leaf; any leaf below their label is right for them")
    if count := metrics.get("products_without_a_leaf"):
        label, most = next(iter(metrics["without_a_leaf"].items()))
        node = "leaf" if "val_micro_f1" in metrics else "node"
        print(
            f"left out of training: {count} products of {metrics['labels_without_a_leaf']} labels that are no {node} "
            f"of the taxonomy, such as {label!r} ({most}); give them a leaf's path with `atlas-ray relabel`"
        )
