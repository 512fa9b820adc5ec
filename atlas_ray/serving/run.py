"""The endpoint on this machine, or deployed to the cluster that is there."""

import signal
import threading
from collections.abc import Callable

from ray import serve
from ray.serve.config import HTTPOptions

from atlas_ray.serving.access import TokenTable
from atlas_ray.serving.app import build_app
from atlas_ray.serving.config import ServeConfig
from atlas_ray.storage import read_bytes

APP = "atlas_ray"


def deploy(config: ServeConfig) -> str:
    """Start the endpoint, or bring a running one to these settings; wait until it is ready.

    Returns:
        Its address.

    Raises:
        UserError: for a model or a file of tokens that cannot be read.
    """
    for uri in config.models().values():
        read_bytes(f"{uri.rstrip('/')}/model.json")
    TokenTable(config.tokens, config.tokens_file)
    # A body that comes slowly is refused by the gateway first, with a reason.
    timeout_s = config.request_timeout_s + 5
    serve.start(http_options=HTTPOptions(host=config.host, port=config.port, request_timeout_s=timeout_s))
    serve.run(build_app(config), name=APP, route_prefix="/")
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{config.port}"


def serve_until_stopped(config: ServeConfig, started: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests that run then are answered first.

    Args:
        config: What to serve.
        started: Called with the address once requests are answered.

    Raises:
        UserError: as `deploy`.
    """
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        started(deploy(config))
        stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        serve.shutdown()
