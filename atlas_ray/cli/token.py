"""`token`: a token for somebody who may ask the endpoint."""

import argparse
import sys

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `token`."""
    parser.add_argument("name", metavar="NAME", help="name of the token's owner")


def run(options: argparse.Namespace) -> int:
    """Make a token, and the line that lets the endpoint know it."""
    from atlas_ray.serving.access import new_token

    token, line = new_token(options.name)
    print(f"{line}")
    print(
        f"the line above goes into the file of `serve --tokens-file`; the token, shown this once: {token}",
        file=sys.stderr,
    )
    return EXIT_OK
