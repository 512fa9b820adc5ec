"""Starting and stopping the endpoint, on this machine or on a running cluster."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import ClusterError, ConfigError
from atlas_ray.runtime.session import hush
from atlas_ray.runtime.stops import STOPS
from atlas_ray.serving.access import TokenTable
from atlas_ray.serving.app import build_app, running_serve
from atlas_ray.serving.settings import ServeConfig

APP = "atlas_ray"


def check(config: ServeConfig) -> None:
    """Check that the models and the tokens can be read, before anything starts.

    Raises:
        UserError: if one of them cannot.
    """
    for uri in config.absolute().models().values():
        load_artifact(uri, target=None)  # invalid weights are reported now, and not by a replica that never starts
    TokenTable(config.tokens, config.tokens_file)


def deploy(config: ServeConfig) -> str:
    """Start the endpoint, or update a running one, with settings that `check` accepted; wait until it is ready.

    Returns:
        Its address.

    Raises:
        UserError: if the cluster has no room, or its Serve listens on another address.
    """
    config = config.absolute()
    if "RAY_ADDRESS" not in os.environ:
        _check_room(config)
    # Longer than the gateway's own timeout, which refuses a slow body with a reason.
    options = HTTPOptions(host=config.host, port=config.port, request_timeout_s=config.request_timeout_s + 5)
    _check_running(options)
    logs = LoggingConfig(enable_access_log=False)  # two lines a request; the metrics count them
    serve.start(http_options=options, logging_config=logs)
    try:
        serve.run(build_app(config), name=APP, route_prefix="/", logging_config=logs)
    except RuntimeError as error:
        raise ClusterError(f"the endpoint did not start: {_reason(error)}") from error
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{config.port}"


def serve_until_stopped(config: ServeConfig, started: Callable[[str], None]) -> None:
    """Serve on a Ray of this process until SIGINT, SIGTERM or SIGHUP; running requests are answered first.

    Args:
        config: Settings of the endpoint.
        started: Called with the address once requests are answered.

    Raises:
        UserError: as `deploy`, and if `RAY_ADDRESS` names a cluster, whose Serve must not end with this process.
    """
    if "RAY_ADDRESS" in os.environ:
        raise ClusterError(f"RAY_ADDRESS is {os.environ['RAY_ADDRESS']!r}; add --detach to deploy to that cluster")
    stop = threading.Event()
    try:
        started(deploy(config))
        for number in STOPS:
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
        drain(config)
    finally:
        if running_serve() is not None:
            hush()
            serve.shutdown()


def drain(config: ServeConfig) -> None:
    """Let the gateways refuse new requests, and wait until the running ones are answered, at most `drain_s`."""
    handle = serve.get_app_handle(APP)

    async def drain_all() -> None:
        # Each call goes to the replica with the fewest calls, so this many reach all of them.
        calls = [handle.drain.remote() for _ in range(4 * config.gateways)]
        await asyncio.wait_for(asyncio.gather(*calls), config.drain_s)

    try:
        asyncio.run(drain_all())
    except TimeoutError:
        return  # the time is up


def _reason(error: RuntimeError) -> str:
    """Return the last message of the replica that did not start."""
    texts = [str(error)]
    if (application := serve.status().applications.get(APP)) is not None:
        texts += [f"{name}: {status.message}" for name, status in application.deployments.items() if status.message]
    lines = [line.strip() for line in texts[-1].splitlines() if line.strip()]
    return lines[-1][:500] if lines else "no reason is known"


def _check_room(config: ServeConfig) -> None:
    """Refuse more replicas than this machine has room for, which would wait for ever."""
    resources = ray.cluster_resources()
    count = len(config.models()) * max(config.min_replicas, 1)
    for kind, each, gateway in (("CPU", config.model_cpus, 1), ("GPU", config.model_gpus, 0)):
        if each * count + gateway > resources.get(kind, 0):
            raise ConfigError(
                f"{count} replicas of {each:g} {kind}s do not fit: this machine's Ray counts "
                f"{resources.get(kind, 0):g}, {gateway} of them for the gateway; "
                "see --model-cpus, --model-gpus and --min-replicas"
            )


def _check_running(options: HTTPOptions) -> None:
    """Refuse to deploy to a Serve that runs with other HTTP options, which cannot change while it runs."""
    if (client := running_serve()) is not None:
        running = client.http_config
        for name in ("host", "port", "request_timeout_s"):
            if getattr(running, name) != getattr(options, name):
                raise ConfigError(
                    f"Serve runs on this cluster with {name} {getattr(running, name)!r}, "
                    f"not {getattr(options, name)!r}; use the same, or end it with `serve shutdown`"
                )
