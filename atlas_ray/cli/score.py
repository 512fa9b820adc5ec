"""`score`: a category path for every product of a catalogue."""

import argparse
import sys
from dataclasses import replace

from atlas_ray.cli.command import plan_exit, run_exit, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `score`."""
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.runtime.settings import PlanConfig
    from atlas_ray.scoring.settings import ScoreConfig

    add_flags(parser, ScoreConfig)
    add_flags(parser, PredictorConfig)
    add_flags(parser, PlanConfig)


def run(options: argparse.Namespace) -> int:
    """Give every product of a catalogue its category path."""
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.reports.terminal import print_score
    from atlas_ray.scoring.run import score
    from atlas_ray.scoring.settings import ScoreConfig

    predictor = settings_of(options, PredictorConfig)
    config = replace(settings_of(options, ScoreConfig), predictor=predictor)
    asked = "--target-precision" if config.target_precision else "--cascade" if config.cascade else None
    if asked and (config.within or config.taxonomy):
        print(
            f"{asked} was calibrated on the model's whole taxonomy; in a part of it, or in another one, the "
            "answers may reach another precision",
            file=sys.stderr,
        )
    if (code := plan_exit("score", options, config)) is not None:
        return code
    report = score(config)
    print_score(report)
    return run_exit("score", report, config.max_quarantine_fraction)
