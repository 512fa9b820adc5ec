"""`export`: a scoring run as one file for a shop's backend."""

import argparse

from atlas_ray.cli.command import quarantine_exit, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `export`."""
    from atlas_ray.pipelines.export import ExportConfig

    add_flags(parser, ExportConfig)


def run(options: argparse.Namespace) -> int:
    """Write the products of a scoring run into one file."""
    from atlas_ray.pipelines.export import ExportConfig, export
    from atlas_ray.reports.delivery import print_export

    config = settings_of(options, ExportConfig)
    report = export(config)
    print_export(report)
    limit = config.max_quarantine_fraction
    return quarantine_exit("export", report.refused_fraction, limit, what="corrections")
