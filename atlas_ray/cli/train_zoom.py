"""`train zoom`: the filter that tells zoomed pictures from normal ones."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `train zoom`."""
    from atlas_ray.zoom.settings import ZoomTraining

    add_flags(parser, ZoomTraining)


def run(options: argparse.Namespace) -> int:
    """Train the filter that tells zoomed pictures from normal ones."""
    from atlas_ray.zoom.settings import ZoomTraining

    config = settings_of(options, ZoomTraining)

    from atlas_ray.reports.zoom import print_zoom
    from atlas_ray.zoom.training import train_zoom

    report = train_zoom(config)
    print_zoom(report.metrics)
    if refused := report.metrics["refused_pictures"]:
        print(f"{refused} pictures could not be used; see {report.output}/quarantine")
    print(f"model {report.model_id} in {report.output}")
    return EXIT_OK
