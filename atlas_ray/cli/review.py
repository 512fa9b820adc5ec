"""`review`: the products that are most worth a person's look."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags, flags_given


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `review`."""
    from atlas_ray.evaluation.review import ReviewConfig

    add_flags(parser, ReviewConfig)
    parser.add_argument(
        "--serve",
        action="store_true",
        help="open the page at an address of this machine, and save decisions in corrections.csv of --output; "
        "without --run and --products, open the existing review",
    )
    parser.add_argument("--port", type=int, default=0, help="port that --serve listens on (default: any free port)")


def run(options: argparse.Namespace) -> int:
    """Write the products that are most worth a person's look."""
    from atlas_ray.errors import ConfigError
    from atlas_ray.evaluation.review import ReviewConfig, print_review, review

    values = flags_given(options, ReviewConfig)
    if "run" in values or "products" in values or not options.serve:
        print_review(review(settings_of(options, ReviewConfig)))
    if options.serve:
        from atlas_ray.evaluation.review_server import serve_review

        if not values.get("output"):
            raise ConfigError("--serve opens a review; name its folder with --output")
        serve_review(values["output"], _print_served, port=options.port)
    return EXIT_OK


def _print_served(address: str, corrections: str) -> None:
    print(f"review at {address}")
    print(f"what is decided there goes into {corrections}; stop with Ctrl-C", flush=True)
