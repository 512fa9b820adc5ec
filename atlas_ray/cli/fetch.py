"""`fetch`: the pictures of a catalogue of URLs, downloaded."""

import argparse

from atlas_ray.cli.command import plan_exit, run_exit, settings_of, tell_already_done
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `fetch`."""
    from atlas_ray.fetching.run import FetchConfig
    from atlas_ray.runtime.settings import PlanConfig

    add_flags(parser, FetchConfig)
    add_flags(parser, PlanConfig)


def run(options: argparse.Namespace) -> int:
    """Download the pictures of a catalogue of URLs."""
    from atlas_ray.fetching.run import FetchConfig, fetch
    from atlas_ray.reports.collection import print_fetch

    config = settings_of(options, FetchConfig)
    if (code := plan_exit("fetch", options, config)) is not None:
        return code
    report = fetch(config)
    tell_already_done(report)
    print_fetch(report.output, report.run)
    return run_exit("fetch", report, config.max_quarantine_fraction)
