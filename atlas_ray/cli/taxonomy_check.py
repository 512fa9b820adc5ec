"""`taxonomy check`: a taxonomy's file checked, and its paths counted."""

import argparse

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `taxonomy check`."""
    parser.add_argument("source", help="a taxonomy file, or the built-in atlas-52")
    parser.add_argument("--within", help="path of the node to check, with all below it (default: the whole taxonomy)")


def run(options: argparse.Namespace) -> int:
    """Check a taxonomy and count its paths."""
    return describe(options, tree=False)


def describe(options: argparse.Namespace, *, tree: bool) -> int:
    """Print what a taxonomy has, with its tree if asked."""
    from atlas_ray.taxonomy import parse_path, read_taxonomy

    taxonomy = read_taxonomy(options.source)
    if options.within:
        taxonomy = taxonomy.within(parse_path(options.within))
    if tree:
        for line in taxonomy.lines():
            print(line)
        print()
    version = f" {taxonomy.version}" if taxonomy.version else ""
    print(f"{taxonomy.name}{version}: {len(taxonomy.leaves)} leaves, {len(taxonomy.nodes)} nodes, id {taxonomy.id}")
    if shared := sum(len(ids) > 1 for ids in taxonomy.ids_of.values()):
        print(f"  paths that several ids have: {shared}")
    for level, count in enumerate(taxonomy.count_by_level(), 1):
        print(f"  level {level}: {count} nodes")
    return EXIT_OK
