"""`embed`: a vector for every product of a catalogue."""

import argparse
from dataclasses import replace

from atlas_ray.cli.command import plan_exit, run_exit, settings_of, tell_already_done
from atlas_ray.settings import add_flags

OF_THE_SEARCH = ("search", "beam_width", "top_k")
"""Settings of a predictor that vectors do not depend on."""


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `embed`."""
    from atlas_ray.embedding.settings import EmbedConfig
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.runtime.settings import PlanConfig

    add_flags(parser, EmbedConfig)
    add_flags(parser, PredictorConfig, skip=OF_THE_SEARCH)
    add_flags(parser, PlanConfig)


def run(options: argparse.Namespace) -> int:
    """Give every product of a catalogue a vector."""
    from atlas_ray.embedding.run import embed
    from atlas_ray.embedding.settings import EmbedConfig
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.reports.embedding import print_embed

    predictor = settings_of(options, PredictorConfig)
    config = replace(settings_of(options, EmbedConfig), predictor=predictor)
    if (code := plan_exit("embed", options, config)) is not None:
        return code
    report = embed(config)
    tell_already_done(report)
    print_embed(report.output, report.run)
    return run_exit("embed", report, config.max_quarantine_fraction)
