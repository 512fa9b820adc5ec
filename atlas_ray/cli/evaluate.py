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
    from atlas_ray.errors import ConfigError
    from atlas_ray.evaluation.label_run import evaluate_run
    from atlas_ray.evaluation.paths import evaluate
    from atlas_ray.io import storage
    from atlas_ray.reports.labels import print_label_metrics
    from atlas_ray.reports.terminal import print_evaluation
    from atlas_ray.runs.scored import open_scored

    folder = storage.join(options.output or options.run, "evaluation")
    if open_scored(options.run, target=None).target == "labels":
        if options.model or options.embeddings:
            raise ConfigError(f"{options.run} is a run of labels; --model and --embeddings are for runs of paths")
        print_label_metrics(evaluate_run(options.run, options.output), folder)
    else:
        metrics = evaluate(options.run, options.output, model=options.model, embeddings=options.embeddings)
        print_evaluation(metrics, folder)
    return EXIT_OK
