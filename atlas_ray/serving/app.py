"""The application that Serve deploys, the same on a laptop and on a cluster."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig
from ray.serve.context import _get_global_client
from starlette.types import ASGIApp

from atlas_ray.errors import ConfigError
from atlas_ray.runtime.session import MALLOC_ENV
from atlas_ray.serving.access import TokenTable
from atlas_ray.serving.gateway import Gateway
from atlas_ray.serving.model import Model
from atlas_ray.serving.settings import ServeConfig, is_loopback

SPARE_REQUESTS = 100
"""Requests that a gateway takes beyond those that the models have room for, so as to refuse them with a reason."""
SPARE_CALLS = 4
"""Calls that a model takes beyond those of the gateways."""
PICTURES_PER_GATEWAY = 8
"""Pictures that wait to be decoded in each gateway when their number is right; see `ScaleByProducts`."""
BACKPRESSURE = BackpressureConfig(status_code=429, retry_after_s=1)


class Endpoint(Gateway):
    """A gateway with its HTTP interface."""

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the interface; Serve calls this when the replica starts."""
        from atlas_ray.serving.api import build_api  # only a replica needs FastAPI

        return build_api(self)


def build(args: Mapping[str, Any]) -> Application:
    """Make the application from the `args` of a Serve config file.

    Args:
        args: The fields of `ServeConfig` and `PredictorConfig`.

    Raises:
        ConfigError: naming a field that is unknown, missing or out of range.
    """
    config = ServeConfig.of(args, "args of atlas_ray.serving.app:build")
    if config.allow_anonymous and (client := running_serve()) and not is_loopback(client.http_config.host):
        raise ConfigError(
            f"allow_anonymous, and Serve listens on {client.http_config.host!r}: anyone on the network could ask; "
            "use tokens, or http_options with host 127.0.0.1"
        )
    return build_app(config)


def running_serve() -> Any:
    """Return the client of the Serve that runs on the connected Ray, or None."""
    return _get_global_client(raise_if_no_controller_running=False)


def build_app(config: ServeConfig) -> Application:
    """Make the application: a gateway, and a deployment for each model."""
    if config.tokens:
        TokenTable(config.tokens)  # find a mistake here, and not in a replica
    predictor = replace(config.predictor, batch_size=config.batch_size)
    if not config.model_gpus and not predictor.threads:
        predictor = replace(predictor, threads=max(1, int(config.model_cpus)))
    if not config.model_gpus and predictor.device == "auto":
        predictor = replace(predictor, device="cpu")  # a replica sees GPUs that it has not reserved, too
    products_per_replica = 2 * config.batch_size  # a batch that runs, and one that is ready
    # Each gateway may have two calls running, and there are twice as many gateways during an update.
    calls = max(4 * config.gateways + SPARE_CALLS, config.batch_size)
    models = {
        name: serve.deployment(Model)  # type: ignore[attr-defined]
        .options(
            name=f"model-{name}",
            max_ongoing_requests=calls,
            max_queued_requests=config.max_queued_requests + 4 * config.max_replicas,  # the gateways refuse before
            graceful_shutdown_timeout_s=config.drain_s,
            max_surge_percent=100,  # a new replica is ready before an old one goes
            ray_actor_options={
                "num_cpus": config.model_cpus,
                "num_gpus": config.model_gpus,
                "runtime_env": {"env_vars": MALLOC_ENV},
            },
            **_scaling(config.min_replicas, config.max_replicas, config.batch_size),
        )
        .bind(uri, predictor)
        for name, uri in config.models().items()
    }
    max_requests = (
        len(models) * (config.max_replicas * products_per_replica + config.max_queued_requests) + SPARE_REQUESTS
    )
    gateway: Application = (
        serve.deployment(serve.ingress()(Endpoint))  # type: ignore[attr-defined]
        .options(
            name="gateway",
            max_ongoing_requests=max_requests,
            max_queued_requests=max_requests,
            backpressure_config=BACKPRESSURE,
            graceful_shutdown_timeout_s=config.drain_s,
            max_surge_percent=100,
            ray_actor_options={"num_cpus": 1},
            **_scaling(config.min_gateways, config.gateways, PICTURES_PER_GATEWAY),
        )
        .bind(config, models)
    )
    return gateway


def _scaling(min_replicas: int, max_replicas: int, products: int) -> dict[str, Any]:
    """Return the scaling options of a deployment whose replicas hold about `products` products each."""
    if min_replicas == max_replicas:
        return {"num_replicas": max_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            initial_replicas=max(min_replicas, 1),
            policy=AutoscalingPolicy(
                policy_function="atlas_ray.serving.autoscaling:ScaleByProducts", policy_kwargs={"products": products}
            ),
        )
    }
