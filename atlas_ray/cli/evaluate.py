"""`evaluate`: scored products compared with their labels."""

import argparse

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `evaluate`."""
    parser.add_argument("--run", required=True, help="output folder of the scoring run")
    parser.add_argument("--output", help="folder for evaluation/ (default: that of the run)")
    parser.add_argument("--model", help="folder of the run's model, to show attention maps and proposed new paths")
    parser.add_argument("--embeddings", help="output folder of `atlas-ray embed`, to list likely label errors")


def run(options: argparse.Namespace) -> int:
    """Compare scored products with their labels."""
    from atlas_ray.evaluation.paths import evaluate
    from atlas_ray.io import storage
    from atlas_ray.reports.terminal import print_evaluation

    metrics = evaluate(options.run, options.output, model=options.model, embeddings=options.embeddings)
    print_evaluation(metrics, storage.join(options.output or options.run, "evaluation"))
    return EXIT_OK
