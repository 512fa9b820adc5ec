"""`sample`: a smaller catalogue in which every category path keeps its share."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `sample`."""
    from atlas_ray.catalog.sample import SampleConfig

    add_flags(parser, SampleConfig)


def run(options: argparse.Namespace) -> int:
    """Draw a smaller catalogue from a catalogue."""
    from atlas_ray.catalog.sample import SampleConfig, sample
    from atlas_ray.reports.collection import print_sample

    print_sample(sample(settings_of(options, SampleConfig)))
    return EXIT_OK
