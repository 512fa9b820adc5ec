"""`import`: a catalogue of another layout turned into tables."""

import argparse
import sys

from atlas_ray.cli.command import EXIT_OK, quarantine_exit


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `import`."""
    from atlas_ray.catalog.sources import FORMATS

    parser.add_argument("source", help="file, folder or table; see --format")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", help="folder for the tables")
    place.add_argument(
        "--into", metavar="CATALOG", help="catalogue that the source updates: products are added, changed, or deleted"
    )
    parser.add_argument(
        "--full", action="store_true", help="with --into, remove the products that the source does not name"
    )
    parser.add_argument(
        "--format",
        default="auto",
        help=f"format: {', '.join(FORMATS)} (default: from its name and content)",
    )
    parser.add_argument(
        "--encoding",
        default="auto",
        help="encoding of the source, such as windows-1252 (default: inferred from its bytes)",
    )
    parser.add_argument("--sheet", default="", help="sheet of a workbook (default: its first one)")
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
    parser.add_argument("--store", help="store of the rows that name no store")
    parser.add_argument(
        "--path-separator", help="separator of the names in a category path (default: inferred from the paths)"
    )
    parser.add_argument(
        "--category-separator",
        help="separator of category paths in one cell, 'none' if cells hold one (default: inferred from the cells)",
    )
    parser.add_argument(
        "--image-separator", help="separator of the pictures in one cell (default: inferred from their names)"
    )
    parser.add_argument(
        "--max-quarantine-fraction",
        type=float,
        default=0.05,
        help="share of quarantined rows above which the exit code is 3 (default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the first rows as they would be read, and write nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Turn a catalogue of another layout into tables."""
    from atlas_ray.catalog.fields import SEVERAL
    from atlas_ray.catalog.importer import ImportConfig, import_catalog
    from atlas_ray.catalog.preview import preview
    from atlas_ray.errors import ConfigError
    from atlas_ray.reports.terminal import print_import, print_preview
    from atlas_ray.taxonomy import read_taxonomy

    columns: dict[str, str] = {}
    for entry in options.map:
        field, separator, column = entry.partition("=")
        if not separator or not column:
            raise ConfigError(f"--map {entry!r}; expected FIELD=COLUMN, such as title=product_name")
        if field in columns:
            several = f"; of several columns write --map {field}={columns[field]},{column}" * (field in SEVERAL)
            raise ConfigError(f"--map names {field} twice: {columns[field]!r} and {column!r}{several}")
        columns[field] = column
    config = ImportConfig(
        source=options.source,
        output=options.output or options.into,
        update=options.into is not None,
        full=options.full,
        format=options.format,
        sheet=options.sheet,
        columns=columns,
        image_base=options.image_base,
        keep=tuple(name.strip() for name in options.keep.split(",") if name.strip()),
        taxonomy=read_taxonomy(options.taxonomy) if options.taxonomy else None,
        split=options.split,
        seed=options.seed,
        split_exact=options.split_exact,
        previous=tuple(options.previous),
        store=options.store,
        path_separator=options.path_separator,
        category_separator=options.category_separator,
        image_separator=options.image_separator,
        encoding=options.encoding,
        max_quarantine_fraction=options.max_quarantine_fraction,
    )
    first = preview(config)
    if options.dry_run:
        print_preview(first)
    if first.warning:
        print(f"atlas-ray import: {first.warning}", file=sys.stderr, flush=True)
    if options.dry_run:
        return EXIT_OK
    report = import_catalog(config)
    print_import(report)
    if first.addresses:
        print(f"next: atlas-ray fetch --catalog {report.output} --output FOLDER downloads the pictures")
    return quarantine_exit("import", report.quarantined_fraction, config.max_quarantine_fraction, what="rows")
