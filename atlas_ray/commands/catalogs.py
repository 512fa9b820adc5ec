"""`import` and `select`."""

import argparse

from atlas_ray.commands.exits import EXIT_OK, quarantine_exit


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `import`."""
    parser.add_argument("source", help="Atlas JSON, CSV, JSON Lines, or a folder of category folders")
    parser.add_argument("--output", required=True, help="where the tables go")
    parser.add_argument("--format", default="auto", help="auto, atlas-json, csv, jsonl or folder")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="our field = the source's column",
    )
    parser.add_argument("--image-base", default="", help="folder that relative picture names are below")
    parser.add_argument("--taxonomy", help="refuse labels outside this taxonomy")
    parser.add_argument(
        "--split", help="train/val/test shares of labelled products (default: 65/5/30, or those of --previous)"
    )
    parser.add_argument("--seed", type=int, help="random seed of the split (default: 0, or that of --previous)")
    parser.add_argument(
        "--split-exact",
        action="store_true",
        help="exact shares in each category path, for a catalogue that is imported once: the order of the rows decides",
    )
    parser.add_argument(
        "--previous",
        action="append",
        default=[],
        metavar="CATALOG",
        help="an earlier catalogue, whose products keep their split; may be repeated, the newest last",
    )
    parser.add_argument("--store", help="store of rows that name none")
    parser.add_argument("--path-separator", default=">", help="between names of a path (default: %(default)s)")


def run_import(options: argparse.Namespace) -> int:
    """Turn a catalogue of another layout into tables."""
    from atlas_ray.catalog.importer import ImportConfig, import_catalog
    from atlas_ray.errors import ConfigError
    from atlas_ray.reports.terminal import print_import
    from atlas_ray.taxonomy import read_taxonomy

    columns = {}
    for entry in options.map:
        field, separator, column = entry.partition("=")
        if not separator or not column:
            raise ConfigError(f"--map {entry!r}; expected FIELD=COLUMN, such as title=product_name")
        columns[field] = column
    report = import_catalog(
        ImportConfig(
            source=options.source,
            output=options.output,
            format=options.format,
            columns=columns,
            image_base=options.image_base,
            taxonomy=read_taxonomy(options.taxonomy) if options.taxonomy else None,
            split=options.split,
            seed=options.seed,
            split_exact=options.split_exact,
            previous=tuple(options.previous),
            store=options.store,
            path_separator=options.path_separator,
        )
    )
    print_import(report)
    return EXIT_OK


def add_select(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `select`."""
    from atlas_ray.catalog.selection import SelectConfig
    from atlas_ray.config import add_flags

    add_flags(parser, SelectConfig)


def run_select(options: argparse.Namespace) -> int:
    """Make a catalogue of some products of another one."""
    from atlas_ray.catalog.selection import SelectConfig, select
    from atlas_ray.config import COMMAND_LINE, build_settings, given
    from atlas_ray.reports.collection import print_select

    config = build_settings(SelectConfig, given(options, SelectConfig), COMMAND_LINE)
    report = select(config)
    print_select(report)
    return quarantine_exit(
        "select", report.quarantined_fraction, config.max_quarantine_fraction, what="listed products"
    )
