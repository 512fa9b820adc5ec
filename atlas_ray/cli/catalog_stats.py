"""`catalog stats`: what a catalogue holds, as a page."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `catalog stats`."""
    from atlas_ray.catalog.stats import StatsConfig

    add_flags(parser, StatsConfig)


def run(options: argparse.Namespace) -> int:
    """Describe a catalogue on a page."""
    from atlas_ray.catalog.stats import StatsConfig, catalog_stats
    from atlas_ray.reports.catalog_page import print_stats, write_stats_page

    config = settings_of(options, StatsConfig)
    stats = catalog_stats(config)
    write_stats_page(stats, config.output)
    print_stats(stats, config.output)
    return EXIT_OK
