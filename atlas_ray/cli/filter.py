"""`filter`: zoomed pictures told from normal ones."""

import argparse

from atlas_ray.cli.command import plan_exit, run_exit, settings_of, tell_already_done
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `filter`."""
    from atlas_ray.runtime.settings import PlanConfig
    from atlas_ray.zoom.filter import FilterConfig

    add_flags(parser, FilterConfig)
    add_flags(parser, PlanConfig)


def run(options: argparse.Namespace) -> int:
    """Tell the zoomed pictures of a catalogue from the normal ones."""
    from atlas_ray.reports.collection import print_filter
    from atlas_ray.zoom.filter import FilterConfig, filter_catalog

    config = settings_of(options, FilterConfig)
    if (code := plan_exit("filter", options, config)) is not None:
        return code
    report = filter_catalog(config)
    tell_already_done(report)
    print_filter(report.output, report.run)
    return run_exit("filter", report, config.max_quarantine_fraction)
