"""`publish`: a scoring run as one commit of a warehouse's table."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `publish`."""
    from atlas_ray.publishing.publish import PublishConfig

    add_flags(parser, PublishConfig)


def run(options: argparse.Namespace) -> int:
    """Make a scoring run one commit of a table."""
    from atlas_ray.publishing.publish import PublishConfig, publish
    from atlas_ray.reports.delivery import print_publish

    print_publish(publish(settings_of(options, PublishConfig)))
    return EXIT_OK
