"""`relabel`: a person's corrections taken over as labels."""

import argparse

from atlas_ray.cli.command import quarantine_exit, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `relabel`."""
    from atlas_ray.catalog.corrections import RelabelConfig

    add_flags(parser, RelabelConfig)


def run(options: argparse.Namespace) -> int:
    """Take corrections over as labels into a copy of a catalogue."""
    from atlas_ray.catalog.corrections import RelabelConfig, relabel
    from atlas_ray.reports.collection import print_relabel

    config = settings_of(options, RelabelConfig)
    report = relabel(config)
    print_relabel(report)
    found, limit = report.quarantined_fraction, config.max_quarantine_fraction
    return quarantine_exit("relabel", found, limit, what="corrections")
