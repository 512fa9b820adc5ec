"""`train head`: a classifier over the vectors of an embedding run."""

import argparse

from atlas_ray.cli.command import EXIT_OK
from atlas_ray.cli.train import flags, print_best, print_labels, training_of

__all__ = ["flags", "run"]


def run(options: argparse.Namespace) -> int:
    """Train a head."""
    from atlas_ray.training.head import train_head
    from atlas_ray.training.settings import HeadTraining

    config = training_of(options, HeadTraining)
    report = train_head(config, fresh=options.fresh)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do (--fresh trains it anew)")
    print(f"model {report.model_id} in {report.output}")
    print_labels(report.metrics, config.examples)
    print_best(report, config.examples)
    if calibration := report.metrics.get("calibration"):
        print(
            f"calibrated on them: temperature {calibration['temperature']:.3f}, expected calibration error "
            f"{calibration['error_before']:.4f} before, {calibration['error_after']:.4f} after"
        )
    return EXIT_OK
