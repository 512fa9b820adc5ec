"""`serve`: the endpoint."""

import argparse
import os

from atlas_ray.cli.command import EXIT_OK
from atlas_ray.settings import COMMAND_LINE, add_flags, flags_given, read_settings


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `serve`."""
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.serving.settings import ServeConfig

    parser.add_argument("--config", help="YAML file of these settings; a flag overrides it")
    parser.add_argument(
        "--detach",
        action="store_true",
        help="deploy to the cluster of RAY_ADDRESS and return; the endpoint keeps running there",
    )
    add_flags(parser, ServeConfig)
    add_flags(parser, PredictorConfig)


def run(options: argparse.Namespace) -> int:
    """Answer over HTTP until stopped."""
    from atlas_ray.errors import ClusterError
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.runtime.session import connect
    from atlas_ray.serving.run import check, deploy, serve_until_stopped
    from atlas_ray.serving.settings import ServeConfig

    values = read_settings(options.config) if options.config else {}
    values |= flags_given(options, ServeConfig) | flags_given(options, PredictorConfig)
    config = ServeConfig.of(values, options.config or COMMAND_LINE)
    if options.detach and not os.environ.get("RAY_ADDRESS"):
        raise ClusterError("--detach leaves the endpoint on a cluster, and RAY_ADDRESS names none")
    check(config)
    if options.detach:
        connect()
        print(_serving(deploy(config)))
        return EXIT_OK
    if "RAY_ADDRESS" not in os.environ:
        connect()
    serve_until_stopped(config, lambda url: print(f"{_serving(url)}; stop with Ctrl-C", flush=True))
    return EXIT_OK


def _serving(url: str) -> str:
    """Say where the endpoint answers, and which page a browser of this machine opens."""
    page = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    return f"serving at {url}; its page: {page}/"
