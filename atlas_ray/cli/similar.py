"""`similar`: similar products, and nearly identical ones whose labels differ."""

import argparse
import json

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `similar`."""
    from atlas_ray.embedding.settings import SimilarConfig

    add_flags(parser, SimilarConfig)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, for a program")


def run(options: argparse.Namespace) -> int:
    """Find similar products, or nearly identical ones whose labels differ."""
    from atlas_ray.embedding.label_errors import find_label_errors
    from atlas_ray.embedding.settings import SimilarConfig
    from atlas_ray.embedding.similar import similar_products
    from atlas_ray.reports.embedding import print_label_errors, print_similar

    config = settings_of(options, SimilarConfig)
    rows = find_label_errors(config) if config.label_errors else similar_products(config)
    if options.json:
        print(json.dumps(rows.to_pylist(), ensure_ascii=False, indent=1))
    elif config.label_errors:
        print_label_errors(config.embeddings, rows, config.limit)
    else:
        print_similar(rows)
    return EXIT_OK
