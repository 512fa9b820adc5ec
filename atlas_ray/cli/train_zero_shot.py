"""`train zero-shot`: a model of a taxonomy's names alone."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `train zero-shot`."""
    from atlas_ray.training.zero_shot import ZeroShotTraining

    parser.add_argument("--fresh", action="store_true", help="delete an earlier run in the output and start again")
    add_flags(parser, ZeroShotTraining)


def run(options: argparse.Namespace) -> int:
    """Make the model."""
    from atlas_ray.training.zero_shot import ZeroShotTraining, train_zero_shot

    report = train_zero_shot(settings_of(options, ZeroShotTraining), fresh=options.fresh)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do (--fresh makes it anew)")
    print(f"model {report.model_id} in {report.output}")
    print(
        f"{report.metrics['leaves']} leaf paths, named by {report.metrics['texts']} texts; no product was learned "
        "from, so its probabilities are a guess: `atlas-ray calibrate` fits them to labelled products"
    )
    return EXIT_OK
