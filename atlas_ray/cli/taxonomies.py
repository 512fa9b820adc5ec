"""`taxonomy show`, `check`, `diff` and `migrate`."""

import argparse

from atlas_ray.cli.command import EXIT_OK


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `taxonomy show` and `taxonomy check`."""
    parser.add_argument("source", help="a taxonomy file, or the built-in atlas-52")
    parser.add_argument("--within", help="only the part at and below this path")


def run_show(options: argparse.Namespace) -> int:
    """Draw a taxonomy."""
    return _describe(options, tree=True)


def run_check(options: argparse.Namespace) -> int:
    """Check a taxonomy."""
    return _describe(options, tree=False)


def _describe(options: argparse.Namespace, *, tree: bool) -> int:
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


def add_diff(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `taxonomy diff`."""
    parser.add_argument("old", help="a taxonomy file, or the built-in atlas-52")
    parser.add_argument("new", help="its next version")
    parser.add_argument("--mapping", help="a CSV of old_path, new_path, or a mapping as Shopify publishes them")
    parser.add_argument("--output", help="a JSON file for all of it")


def run_diff(options: argparse.Namespace) -> int:
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


def add_migrate(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `taxonomy migrate`."""
    from atlas_ray.migration.settings import MigrateConfig
    from atlas_ray.settings import add_flags

    text = "a finished scoring run: its predictions and labels are migrated"
    parser.add_argument("--run", dest="scored", default=argparse.SUPPRESS, help=text)
    add_flags(parser, MigrateConfig, skip=("scored",))


def run_migrate(options: argparse.Namespace) -> int:
    """Rewrite a scoring run, or a catalogue's labels, to the next version of its taxonomy."""
    from atlas_ray.migration.run import migrate
    from atlas_ray.migration.settings import MigrateConfig
    from atlas_ray.reports.terminal import print_migration
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    config = build_settings(MigrateConfig, given(options, MigrateConfig), COMMAND_LINE)
    print_migration(migrate(config))
    return EXIT_OK
