"""`score`, `evaluate` and `evaluate-labels`."""

import argparse
import sys
from dataclasses import replace

from atlas_ray.commands.exits import COMMAND_LINE, EXIT_OK, EXIT_QUARANTINE


def add_score(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `score`."""
    from atlas_ray.config import add_flags
    from atlas_ray.predictors import PredictorConfig
    from atlas_ray.scoring.config import ScoreConfig

    add_flags(parser, ScoreConfig)
    add_flags(parser, PredictorConfig)


def run_score(options: argparse.Namespace) -> int:
    """Give every product of a catalogue its category path."""
    from atlas_ray.config import build_settings, given
    from atlas_ray.predictors import PredictorConfig
    from atlas_ray.reports.terminal import print_score
    from atlas_ray.scoring.config import ScoreConfig
    from atlas_ray.scoring.run import score
    from atlas_ray.session import connect

    predictor = build_settings(PredictorConfig, given(options, PredictorConfig), COMMAND_LINE)
    config = replace(build_settings(ScoreConfig, given(options, ScoreConfig), COMMAND_LINE), predictor=predictor)
    connect()
    report = score(config)
    print_score(report)
    if report.quarantined_fraction > config.max_quarantine_fraction:
        found, limit = report.quarantined_fraction, config.max_quarantine_fraction
        print(f"atlas-ray score: {found:.1%} of the pictures are in quarantine, over {limit:.1%}", file=sys.stderr)
        return EXIT_QUARANTINE
    return EXIT_OK


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `evaluate`."""
    parser.add_argument("--run", dest="scored", required=True, help="the output of `atlas-ray score`")
    parser.add_argument("--output", help="where evaluation/ goes; the run itself by default")


def run_evaluate(options: argparse.Namespace) -> int:
    """Compare scored products with their labels."""
    from atlas_ray import storage
    from atlas_ray.reports.evaluation import evaluate
    from atlas_ray.reports.terminal import print_evaluation

    metrics = evaluate(options.scored, options.output)
    print_evaluation(metrics, storage.join(options.output or options.scored, "evaluation"))
    return EXIT_OK


def add_evaluate_labels(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `evaluate-labels`."""
    from atlas_ray.config import MODALITIES

    parser.add_argument("--catalog", required=True, help="a catalogue with labelled products")
    parser.add_argument(
        "--split", default="test", choices=("test", "val", "train"), help="which of them (default: %(default)s)"
    )
    for name in MODALITIES:
        parser.add_argument(f"--{name}", metavar="MODEL", help=f"a model of labels that looks at the {name}")
    parser.add_argument("--fused", action="append", default=[], metavar="MODEL", help="a fused one; may be repeated")
    parser.add_argument("--output", required=True, help="where models.parquet and missed.parquet go")


def run_evaluate_labels(options: argparse.Namespace) -> int:
    """Measure models of labels."""
    from atlas_ray.config import MODALITIES
    from atlas_ray.errors import ConfigError
    from atlas_ray.reports.terminal import print_labels
    from atlas_ray.session import connect
    from atlas_ray.training.label_evaluation import evaluate_labels

    models = [uri for name in MODALITIES if (uri := getattr(options, name))] + options.fused
    if not models:
        raise ConfigError("no model to measure; name some with --picture, --title, --description and --fused")
    connect()
    report = evaluate_labels(options.catalog, options.output, models, split=options.split)
    print_labels(report, options.output)
    return EXIT_OK
