"""`compare`: what moved between two scoring runs."""

import argparse

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `compare`."""
    parser.add_argument("before", metavar="RUN_A", help="the output of `atlas-ray score`")
    parser.add_argument("after", metavar="RUN_B", help="the output of another one")
    parser.add_argument("--output", required=True, help="where comparison.json, comparison.html and the tables go")


def run(options: argparse.Namespace) -> int:
    """Compare two scoring runs."""
    from atlas_ray.evaluation.comparison import compare
    from atlas_ray.io import storage
    from atlas_ray.io.lease import hold
    from atlas_ray.reports.comparison import print_comparison, write_comparison_page

    output = storage.absolute(options.output)
    with hold(output, "compare"):
        compare(options.before, options.after, output)
        write_comparison_page(output)
    print_comparison(output)
    return EXIT_OK
