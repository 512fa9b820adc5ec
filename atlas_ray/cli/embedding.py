"""`embed` and `similar`: vectors of products, and what they are good for."""

import argparse
import json
from dataclasses import replace

from atlas_ray.cli.command import EXIT_OK, run_exit

OF_THE_SEARCH = ("search", "beam_width", "top_k")
"""Settings of a predictor that vectors do not depend on."""


def add_embed(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `embed`."""
    from atlas_ray.embedding.settings import EmbedConfig
    from atlas_ray.prediction.paths import PredictorConfig
    from atlas_ray.settings import add_flags

    add_flags(parser, EmbedConfig)
    add_flags(parser, PredictorConfig, skip=OF_THE_SEARCH)


def run_embed(options: argparse.Namespace) -> int:
    """Give every product of a catalogue a vector."""
    from atlas_ray.embedding.run import embed
    from atlas_ray.embedding.settings import EmbedConfig
    from atlas_ray.prediction.paths import PredictorConfig
    from atlas_ray.reports.embedding import print_embed
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    predictor = build_settings(PredictorConfig, given(options, PredictorConfig), COMMAND_LINE)
    config = replace(build_settings(EmbedConfig, given(options, EmbedConfig), COMMAND_LINE), predictor=predictor)
    report = embed(config)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do")
    print_embed(report.output, report.run)
    return run_exit("embed", report, config.max_quarantine_fraction)


def add_similar(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `similar`."""
    from atlas_ray.embedding.settings import SimilarConfig
    from atlas_ray.settings import add_flags

    add_flags(parser, SimilarConfig)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, for a program")


def run_similar(options: argparse.Namespace) -> int:
    """Find similar products, or nearly identical ones whose labels differ."""
    from atlas_ray.embedding.label_errors import find_label_errors
    from atlas_ray.embedding.settings import SimilarConfig
    from atlas_ray.embedding.similar import similar_products
    from atlas_ray.reports.embedding import print_label_errors, print_similar
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    config = build_settings(SimilarConfig, given(options, SimilarConfig), COMMAND_LINE)
    found = find_label_errors(config) if config.label_errors else similar_products(config)
    if options.json:
        print(json.dumps(found.to_pylist(), ensure_ascii=False, indent=1))
    elif config.label_errors:
        print_label_errors(config.embeddings, found, config.limit)
    else:
        print_similar(found)
    return EXIT_OK
