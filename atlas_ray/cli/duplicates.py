"""`duplicates`: pictures that several products have."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `duplicates`."""
    from atlas_ray.duplicates.run import DuplicatesRunConfig

    add_flags(parser, DuplicatesRunConfig)


def run(options: argparse.Namespace) -> int:
    """Find the pictures that several products have, and keep those products on one side of the split."""
    from atlas_ray.duplicates.run import DuplicatesRunConfig
    from atlas_ray.pipelines.deduplicate import deduplicate
    from atlas_ray.reports.collection import print_duplicates

    done = deduplicate(settings_of(options, DuplicatesRunConfig))
    if done.report.already_done:
        print(f"{done.report.output} holds this run, finished; only the split is made again")
    print_duplicates(done.report.output, done.report.run, done.straddling, done.changed)
    return EXIT_OK
