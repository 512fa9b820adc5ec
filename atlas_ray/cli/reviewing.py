"""`review`, `relabel` and `compare`: a person's look at what a run answered, and what came of it."""

import argparse

from atlas_ray.cli.command import EXIT_OK, quarantine_exit


def add_review(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `review`."""
    from atlas_ray.evaluation.review import ReviewConfig
    from atlas_ray.settings import add_flags

    parser.add_argument("--run", dest="scored", help="the output of `atlas-ray score`")
    add_flags(parser, ReviewConfig, skip=("run",))
    parser.add_argument(
        "--serve",
        action="store_true",
        help="open the page at an address of this machine, and save what is decided into corrections.csv of --output; "
        "without --run and --products the review that is there already",
    )
    parser.add_argument("--port", type=int, default=0, help="where --serve listens (default: any free port)")


def run_review(options: argparse.Namespace) -> int:
    """Write the products that are most worth a person's look."""
    from atlas_ray.evaluation.review import ReviewConfig, print_review, review
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    values = given(options, ReviewConfig) | {"run": options.scored}
    if options.scored or "products" in values or not options.serve:
        print_review(review(build_settings(ReviewConfig, values, COMMAND_LINE)))
    if options.serve:
        from atlas_ray.errors import ConfigError
        from atlas_ray.evaluation.review_server import serve_review

        if not values.get("output"):
            raise ConfigError("--serve opens a review; name its folder with --output")
        serve_review(values["output"], _print_served, port=options.port)
    return EXIT_OK


def _print_served(address: str, corrections: str) -> None:
    print(f"review at {address}")
    print(f"what is decided there goes into {corrections}; stop with Ctrl-C", flush=True)


def add_relabel(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `relabel`."""
    from atlas_ray.catalog.corrections import RelabelConfig
    from atlas_ray.settings import add_flags

    add_flags(parser, RelabelConfig)


def run_relabel(options: argparse.Namespace) -> int:
    """Take corrections over as labels into a copy of a catalogue."""
    from atlas_ray.catalog.corrections import RelabelConfig, relabel
    from atlas_ray.reports.collection import print_relabel
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    config = build_settings(RelabelConfig, given(options, RelabelConfig), COMMAND_LINE)
    report = relabel(config)
    print_relabel(report)
    found, limit = report.quarantined_fraction, config.max_quarantine_fraction
    return quarantine_exit("relabel", found, limit, what="corrections")


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `compare`."""
    parser.add_argument("before", metavar="RUN_A", help="the output of `atlas-ray score`")
    parser.add_argument("after", metavar="RUN_B", help="the output of another one")
    parser.add_argument("--output", required=True, help="where comparison.json, comparison.html and the tables go")


def run_compare(options: argparse.Namespace) -> int:
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
