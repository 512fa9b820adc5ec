"""`import`: a catalogue of another layout turned into tables."""

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from atlas_ray.cli.command import EXIT_OK, quarantine_exit, settings_of
from atlas_ray.settings import add_flags

if TYPE_CHECKING:
    from atlas_ray.catalog.importer import OpenSource


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `import`."""
    from atlas_ray.catalog.importer import ImportConfig

    parser.add_argument("source", help="file, folder or table; see --format")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", help="folder for the tables")
    place.add_argument(
        "--into", metavar="CATALOG", help="catalogue that the source updates: products are added, changed, or deleted"
    )
    column_flags(parser)
    parser.add_argument("--taxonomy", help="refuse labels outside this taxonomy")
    parser.add_argument(
        "--previous",
        action="append",
        default=[],
        metavar="CATALOG",
        help="an earlier catalogue, whose products keep their split; may be repeated, the newest last",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the first rows as they would be read, and write nothing"
    )
    add_flags(parser, ImportConfig, skip=("source", "output", "update"))


def column_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name columns of the source."""
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="column of the source for a field, if its name differs; several columns of pictures: "
        "image_uris=COLUMN,COLUMN; a column for each level: category_path=COLUMN,COLUMN. Fields: product_id, store, "
        "url, title, description, price, currency, brand, sku, availability, breadcrumb, image_uris, image_position, "
        "category_path, split, crawled_at, deleted",
    )
    parser.add_argument(
        "--keep",
        metavar="COLUMN,COLUMN",
        default="",
        help="further columns of the source that its products keep as attributes",
    )


def run(options: argparse.Namespace) -> int:
    """Turn a catalogue of another layout into tables."""
    from atlas_ray.catalog.importer import ImportConfig, import_catalog, open_source
    from atlas_ray.catalog.preview import preview
    from atlas_ray.reports.terminal import print_import, print_preview
    from atlas_ray.taxonomy import read_taxonomy

    options.update = options.into is not None
    options.output = options.output or options.into
    config = replace(
        settings_of(options, ImportConfig),
        **named_columns(options),
        taxonomy=read_taxonomy(options.taxonomy) if options.taxonomy else None,
        previous=tuple(options.previous),
    )
    addresses = 0

    def show(source: "OpenSource") -> None:
        nonlocal addresses
        first = preview(source)
        addresses = first.addresses
        if options.dry_run:
            print_preview(first)
        if first.warning:
            print(f"atlas-ray import: {first.warning}", file=sys.stderr, flush=True)

    if options.dry_run:
        show(open_source(config))
        return EXIT_OK
    report = import_catalog(config, show)
    print_import(report)
    if addresses:
        print(f"next: atlas-ray fetch --catalog {report.output} --output FOLDER downloads the pictures")
    return quarantine_exit("import", report.quarantined_fraction, config.max_quarantine_fraction, what="rows")


def named_columns(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of an `ImportConfig` that `column_flags` sets.

    Raises:
        ConfigError: for a value of --map that is malformed, or names a field twice.
    """
    from atlas_ray.catalog.fields import SEVERAL
    from atlas_ray.errors import ConfigError

    columns: dict[str, str] = {}
    for entry in options.map:
        name, separator, column = entry.partition("=")
        if not separator or not column:
            raise ConfigError(f"--map {entry!r}; expected FIELD=COLUMN, such as title=product_name")
        if name in columns:
            several = f"; of several columns write --map {name}={columns[name]},{column}" * (name in SEVERAL)
            raise ConfigError(f"--map names {name} twice: {columns[name]!r} and {column!r}{several}")
        columns[name] = column
    return {"columns": columns, "keep": tuple(name.strip() for name in options.keep.split(",") if name.strip())}
