"""`evaluate-labels`: what models of labels name, compared with what products have."""

import argparse

from atlas_ray.cli.command import EXIT_OK
from atlas_ray.modalities import MODALITIES


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `evaluate-labels`."""
    from atlas_ray.prediction.engines import AUTO, ENGINE_CHOICES, ENGINE_HELP
    from atlas_ray.prediction.settings import PRECISIONS

    parser.add_argument("--catalog", required=True, help="a catalogue with labelled products")
    parser.add_argument(
        "--split",
        default="test",
        choices=("test", "val", "train"),
        help="split of the products to evaluate on (default: %(default)s)",
    )
    parser.add_argument(
        "--precision", default="auto", choices=PRECISIONS, help="as in `score`; float32 for the same figures everywhere"
    )
    parser.add_argument("--engine", default=AUTO, choices=ENGINE_CHOICES, help=ENGINE_HELP)
    for name in MODALITIES:
        parser.add_argument(f"--{name}", metavar="MODEL", help=f"folder of a model of labels that reads the {name}")
    parser.add_argument(
        "--fused",
        action="append",
        default=[],
        metavar="MODEL",
        help="folder of a fused model of labels; may be repeated",
    )
    parser.add_argument("--output", required=True, help="folder for models.parquet and missed.parquet")


def run(options: argparse.Namespace) -> int:
    """Measure models of labels."""
    from atlas_ray.errors import ConfigError
    from atlas_ray.evaluation.labels import evaluate_labels
    from atlas_ray.reports.labels import print_labels

    models = [uri for name in MODALITIES if (uri := getattr(options, name))] + options.fused
    if not models:
        raise ConfigError("no model to measure; name some with --picture, --title, --description and --fused")
    report = evaluate_labels(
        options.catalog,
        options.output,
        models,
        split=options.split,
        precision=options.precision,
        engine=options.engine,
    )
    print_labels(report, options.output)
    return EXIT_OK
