"""`taxonomy show`: a taxonomy drawn as a tree."""

import argparse

from atlas_ray.cli.taxonomy_check import describe, flags

__all__ = ["flags", "run"]


def run(options: argparse.Namespace) -> int:
    """Draw a taxonomy."""
    return describe(options, tree=True)
