"""The number format and the engines of a run, which `auto` leaves open and its answers depend on."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ray
import torch

from atlas_ray.prediction.device import choose_device, choose_dtype, name_of_dtype
from atlas_ray.prediction.engines import AUTO, choose_engine
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.workers import WorkerPlan

PRECISION = "precision"
MODELS = ("model_id", "zoom_model_id")


def settle(
    identity: Mapping[str, Any],
    plan: Callable[[], WorkerPlan],
    device: str,
    forms: Mapping[str, Collection[str]],
    *known: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Replace `auto` in the identity of a run, so that all its processes compute alike, also when it goes on elsewhere.

    It is what the run began with; or what the earlier run used whose answers are carried over; or else what suits the
    machine that the first process of the plan comes to.

    Args:
        identity: What the run is made of, with `precision` and the names of `forms`.
        plan: Plans the processes with a model, on the connected cluster.
        device: auto, cpu, cuda or cuda:N.
        forms: By the identity's names of engines, those that the network is compiled for.
        known: Identities of such runs, the first one first; None where there is none.

    Returns:
        The identity without `auto`.

    Raises:
        ConfigError: if that machine does not have the device, or cannot run the engine.
    """
    found = {name: identity[name] for name in (PRECISION, *forms)}
    for one in known:
        if one and all(one.get(name) == identity.get(name) for name in MODELS):
            found = {name: one.get(name, AUTO) if value == AUTO else value for name, value in found.items()}
    if AUTO in found.values():
        found = _where_models_run(plan, device, found, forms)
    return {**identity, **found}


def _where_models_run(
    plan: Callable[[], WorkerPlan], device: str, wanted: Mapping[str, str], forms: Mapping[str, Collection[str]]
) -> dict[str, str]:
    gpu = device.startswith("cuda") or (device == AUTO and torch.cuda.is_available())
    if "RAY_ADDRESS" not in os.environ and not gpu:  # Ray will start on this machine
        return of_this_machine("cpu", wanted, forms)
    connect()
    workers = plan()
    nodes = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    if not workers.gpus and nodes == [ray.util.get_node_ip_address()]:
        return of_this_machine(workers.device, wanted, forms)
    # This process may be on a machine without a GPU, and where there is one it should not hold memory of it.
    task = ray.remote(of_this_machine).options(**workers.actor_options)
    found: dict[str, str] = ray.get(task.remote(workers.device, wanted, forms))
    return found


def of_this_machine(device: str, wanted: Mapping[str, str], forms: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return the names of `wanted`, a precision and engines, without `auto`, for a device of this machine."""
    chosen = choose_device(device)
    engines = {name: choose_engine(wanted[name], chosen, compiled) for name, compiled in forms.items()}
    return {PRECISION: name_of_dtype(choose_dtype(wanted[PRECISION], chosen)), **engines}
