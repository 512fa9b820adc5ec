"""`demo`: every step on a shop drawn and served here."""

import argparse

from atlas_ray.cli.main import run as run_command


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `demo`."""
    parser.add_argument("--output", default="demo", help="folder of the demo (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Crawl a shop, filter its pictures, train on them, score and evaluate."""
    from atlas_ray.demo.run import run_demo

    return run_demo(options.output, run_command)
