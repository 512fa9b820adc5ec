"""`taxonomy migrate`: a run, or a catalogue's labels, rewritten to the next version."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `taxonomy migrate`."""
    from atlas_ray.migration.settings import MigrateConfig

    add_flags(parser, MigrateConfig)


def run(options: argparse.Namespace) -> int:
    """Rewrite a scoring run, or a catalogue's labels, to the next version of its taxonomy."""
    from atlas_ray.migration.run import migrate
    from atlas_ray.migration.settings import MigrateConfig
    from atlas_ray.reports.terminal import print_migration

    config = settings_of(options, MigrateConfig)
    print_migration(migrate(config))
    return EXIT_OK
