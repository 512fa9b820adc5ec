"""`optimize`: a model that answers faster on CPUs."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `optimize`."""
    from atlas_ray.evaluation.optimization import OptimizeConfig

    add_flags(parser, OptimizeConfig)


def run(options: argparse.Namespace) -> int:
    """Write a copy of a model with its picture encoder compiled for an engine."""
    from atlas_ray.evaluation.optimization import OptimizeConfig, optimize

    config = settings_of(options, OptimizeConfig)
    found = optimize(config)
    print(f"model {found.model_id} in {config.output}: its picture encoder for the engine {config.engine}")
    print(
        f"agreement with float32 on {found.pictures} pictures of the split {config.split!r}: {found.agreement:.4f}; "
        f"{found.speed:.0f} pictures/s on this CPU, {found.float32_speed:.0f} in float32"
    )
    return EXIT_OK
