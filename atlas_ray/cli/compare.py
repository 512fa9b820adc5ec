"""`compare`: what moved between two scoring runs."""

import argparse

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `compare`."""
    parser.add_argument("before", metavar="RUN_A", help="output folder of a scoring run")
    parser.add_argument("after", metavar="RUN_B", help="output folder of the scoring run to compare with it")
    parser.add_argument("--output", required=True, help="folder for comparison.json, comparison.html and the tables")


def run(options: argparse.Namespace) -> int:
    """Compare two scoring runs."""
    from atlas_ray.errors import ConfigError
    from atlas_ray.evaluation.comparison import compare
    from atlas_ray.evaluation.label_comparison import compare_labels
    from atlas_ray.io import storage
    from atlas_ray.io.lease import hold
    from atlas_ray.reports.comparison import print_comparison, write_comparison_page
    from atlas_ray.reports.labels import print_label_comparison
    from atlas_ray.runs.scored import open_scored

    output = storage.absolute(options.output)
    before, after = (open_scored(uri, target=None).target for uri in (options.before, options.after))
    if before != after:
        kinds = {"path": "category paths", "labels": "labels"}
        raise ConfigError(
            f"{options.before} is a run of {kinds[before]} and {options.after} one of {kinds[after]}; neither can be "
            "judged by the other"
        )
    if after == "labels":
        print_label_comparison(compare_labels(options.before, options.after, output), output)
        return EXIT_OK
    with hold(output, "compare"):
        compare(options.before, options.after, output)
        write_comparison_page(output)
    print_comparison(output)
    return EXIT_OK
