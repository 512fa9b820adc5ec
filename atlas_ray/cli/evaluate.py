"""`evaluate`: scored products compared with their labels."""

import argparse

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `evaluate`."""
    parser.add_argument("--run", required=True, help="the output of `atlas-ray score`")
    parser.add_argument("--output", help="where evaluation/ goes; the run itself by default")
    parser.add_argument("--model", help="the run's model, to show where it looked and which new paths it would spell")
    parser.add_argument("--embeddings", help="the output of `atlas-ray embed`, to list likely label errors")


def run(options: argparse.Namespace) -> int:
    """Compare scored products with their labels."""
    from atlas_ray.evaluation.paths import evaluate
    from atlas_ray.io import storage
    from atlas_ray.reports.terminal import print_evaluation

    metrics = evaluate(options.run, options.output, model=options.model, embeddings=options.embeddings)
    print_evaluation(metrics, storage.join(options.output or options.run, "evaluation"))
    return EXIT_OK
