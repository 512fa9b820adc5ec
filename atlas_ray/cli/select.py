"""`select`: a catalogue of the products that a list names."""

import argparse

from atlas_ray.cli.command import quarantine_exit, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `select`."""
    from atlas_ray.catalog.selection import SelectConfig

    add_flags(parser, SelectConfig)


def run(options: argparse.Namespace) -> int:
    """Make a catalogue of some products of another one."""
    from atlas_ray.catalog.selection import SelectConfig, select
    from atlas_ray.reports.collection import print_select

    config = settings_of(options, SelectConfig)
    report = select(config)
    print_select(report)
    return quarantine_exit(
        "select", report.quarantined_fraction, config.max_quarantine_fraction, what="listed products"
    )
