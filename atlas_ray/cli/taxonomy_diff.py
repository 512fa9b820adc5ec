"""`taxonomy diff`: what became of each path."""

import argparse

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `taxonomy diff`."""
    parser.add_argument("old", help="a taxonomy file, or the built-in atlas-52")
    parser.add_argument("new", help="next version of that taxonomy")
    parser.add_argument("--mapping", help="a CSV of old_path, new_path, or a mapping as Shopify publishes them")
    parser.add_argument("--output", help="JSON file for the whole comparison")


def run(options: argparse.Namespace) -> int:
    """Tell what became of each path."""
    from atlas_ray.io import storage
    from atlas_ray.reports.terminal import print_changes
    from atlas_ray.taxonomy import compare, read_mapping, read_taxonomy

    mapping = read_mapping(options.mapping) if options.mapping else None
    changes = compare(read_taxonomy(options.old), read_taxonomy(options.new), mapping)
    print_changes(changes)
    if options.output:
        storage.write_bytes(options.output, changes.to_json().encode())
        print(f"all of it in {options.output}")
    return EXIT_OK
