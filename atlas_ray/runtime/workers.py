"""How many processes hold a model, and what of the cluster each takes."""

import os
from dataclasses import dataclass
from typing import Any

import ray

from atlas_ray.errors import ConfigError
from atlas_ray.runtime.session import KEEP_MEMORY

SMALL_CLUSTER_CPUS = 8
CPU_WORKERS_A_NODE = 8


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """The processes of a stream that hold a model."""

    workers: int
    threads: int
    """Of PyTorch in each; 0: as many as it likes."""
    gpus: int
    """In the cluster, as far as they may be used."""
    cpu_nodes: bool
    """Whether there are nodes without a GPU."""
    free: bool
    """Whether the processes hold no CPUs in Ray's account: where they did, the reading tasks of a
    small cluster would starve, and a GPU's worker needs few."""

    def block_rows(self, batch_size: int) -> int:
        """Return how many pictures a block holds, of a model that takes so many at once."""
        return batch_size * (8 if self.gpus else 2)

    @property
    def actor_options(self) -> dict[str, Any]:
        """What each process asks of Ray."""
        return {
            "num_cpus": 0 if self.free else self.threads,
            "num_gpus": 1 if self.gpus else 0,
            "runtime_env": {"env_vars": KEEP_MEMORY},
        }


def plan_workers(*, device: str, workers: int, threads: int) -> WorkerPlan:
    """Share the connected cluster out.

    On a cluster of `RAY_ADDRESS`, whose nodes may come on demand, a number of workers given together
    with a device is asked for whether or not there is room for it now; so is one worker where there
    are no CPUs at all.

    Args:
        device: auto, cpu, cuda or cuda:N.
        workers: How many processes; 0: one a GPU, or one a core, at most 8 a machine.
        threads: Of each; 0: the cores shared evenly.

    Raises:
        ConfigError: where the cluster has no room for them.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    cpus = sum(node.get("CPU", 0) for node in nodes)
    on_demand = "RAY_ADDRESS" in os.environ and ((device != "auto" and workers > 0) or not cpus)
    if device.startswith("cuda"):
        gpus = max(gpus, workers) if on_demand else gpus
        if not gpus:
            raise ConfigError(
                f"--device is {device!r}, but the Ray cluster has no GPU; "
                "where nodes come on demand, say how many with --workers"
            )
    if device == "cpu":
        gpus = 0
    # Where the processes hold CPUs, a quarter is left to the reading tasks.
    free = gpus > 0 or (cpus < SMALL_CLUSTER_CPUS and not on_demand)
    # A local Ray counts more CPUs than there are cores, so that the stages never wait for each other.
    cores = min(cpus, os.cpu_count() or 1) if len(nodes) == 1 else cpus
    cores = cores if free else int(cores * 0.75)
    chosen = workers or gpus or int(max(1, min(cores, CPU_WORKERS_A_NODE * len(nodes))))
    threads = threads or (0 if gpus else int(max(1, cores // chosen)))
    fits = chosen <= (gpus or max(cores, workers if free else 0)) and (free or chosen * threads <= cores)
    if not (fits or on_demand):
        raise ConfigError(
            f"{chosen} workers of {threads} threads do not fit the cluster's {cpus:.0f} CPUs and {gpus} GPUs; "
            "choose fewer with --workers, or --threads"
        )
    return WorkerPlan(
        workers=chosen,
        threads=threads,
        gpus=gpus,
        cpu_nodes=any(node.get("CPU") and not node.get("GPU") for node in nodes),
        free=free,
    )
