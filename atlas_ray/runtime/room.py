"""Room for the tasks of a stream, on a cluster that has become smaller than its processes were planned for."""

import time
from typing import Any

import ray
from ray.data._internal.actor_autoscaler.autoscaling_actor_pool import ActorPoolScalingRequest
from ray.data._internal.execution.execution_callback import ExecutionCallback

EVERY_S = 5
"""The time between two looks at the cluster."""
PATIENCE_S = 15
"""How long there may be no CPU for a task, as when all processes start at the same time."""


class MakeRoom(ExecutionCallback):
    """Gives up processes of a stage while all of them together reserve each CPU that the cluster has.

    Tasks that read and write would wait for a CPU, and the processes, idle, for what is read: for ever. It happens when
    a machine leaves whose CPUs the plan counted on. Ray Data starts as many processes again when there is room for
    them; by itself it gives idle ones up, but for want of work and not for want of room, so that is turned off.
    """

    def __init__(self) -> None:
        self._look_at = 0.0
        self._full_since: float | None = None

    def on_execution_step(self, executor: Any) -> None:
        """Look at the cluster, now and then."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + EVERY_S
        pools = [pool for operator in executor._topology for pool in operator.get_autoscaling_actor_pools()]
        reserved = sum(_cpus(pool) * pool.current_size() for pool in pools)
        if not reserved or ray.cluster_resources().get("CPU", 0) - reserved >= 1:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        elif now - self._full_since >= PATIENCE_S and (
            spare := [pool for pool in pools if _cpus(pool) and pool.current_size() > pool.min_size()]
        ):
            request = ActorPoolScalingRequest.downscale(delta=-1, force=True, reason="no CPU is left for a task")
            max(spare, key=_cpus).scale(request)


def _cpus(pool: Any) -> float:
    return float(pool.per_actor_resource_usage().cpu)
