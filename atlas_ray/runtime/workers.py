"""The number of processes with a model, and the share of the cluster that each reserves."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from atlas_ray.errors import ConfigError
from atlas_ray.prediction.feeding import Feeding, feeding_of
from atlas_ray.runtime.session import MALLOC_ENV

SMALL_CLUSTER_CPUS = 8
"""Number of CPUs below which the processes reserve none, so that read tasks find room."""
CORES_PER_FETCHER = 4
"""Number of cores beside GPUs for which one process reads pictures; the others decode them."""
MAX_CPU_WORKERS_PER_NODE = 8
"""The most processes on a node without a GPU, unless `--workers` says more."""
CORES_TO_DECODE = 8
"""Number of cores of a node with GPUs from which its pictures are decoded by tasks."""
LARGE_BLOCK_ROWS = 128
"""Number of pictures in a block of a large stream, unless the model takes so many at once that it is more. A process
that reads holds two blocks, also of photographs of some megabytes each."""
GPU_BLOCK_BYTES, PICTURE_BYTES = 2**26, 2**16
"""What a block for a GPU holds at most, and what a picture of a catalogue takes: its file, or its pixels at 150 px."""
BLOCKS_PER_WORKER = 16
"""Number of blocks that each process gets at least, if the stream is not too short for that."""


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """The processes of a stream that have a model."""

    workers: int
    threads: int
    """Number of PyTorch's threads in each process; 0 for PyTorch's default."""
    fetchers: int
    """The most processes that read pictures."""
    gpus: int
    """Number of the cluster's GPUs that are used."""
    per_gpu: int = 1
    """The most processes that share a GPU."""
    decodes_apart: bool
    """Whether pictures are better decoded by tasks than beside the models: where nodes without a GPU have nothing else
    to do, or those with one have many cores, which no process can use alone, for its interpreter has one lock."""
    cpus: int
    """Number of CPUs that each reserves: those of its threads, or with a GPU one. On a small cluster it is none, where
    they would leave none to tasks that read."""

    def block_rows(self, batch_size: int | None, rows: int) -> int:
        """Return the number of pictures in a block.

        A block takes some 20 ms of the driver, and as much of other processes, however large it is. So blocks of large
        streams are large, but each process gets `BLOCKS_PER_WORKER` of them, so that all processes end together. For a
        GPU they are whole batches, and larger, but by their bytes.

        Args:
            batch_size: The number of pictures that the model takes at once; None for what suits the device.
            rows: The number of pictures of the stream.
        """
        batch_size = batch_size or self.feeding.batch_size
        share = rows // (self.workers * BLOCKS_PER_WORKER)
        if self.gpus:
            return max(min(share, GPU_BLOCK_BYTES // PICTURE_BYTES) // batch_size, 1) * batch_size
        return max(2 * batch_size, min(share, LARGE_BLOCK_ROWS))

    @property
    def feeding(self) -> Feeding:
        """How the device of each process is fed."""
        return feeding_of(self.device)

    @property
    def device(self) -> str:
        """The device of each process, which sees GPUs that Ray has given to another one, too."""
        return "cuda" if self.gpus else "cpu"

    @property
    def fetcher_cpus(self) -> int:
        """Number of CPUs that each process that reads reserves."""
        return 0 if not self.cpus and self.fetchers == self.workers else 1

    @property
    def actor_options(self) -> dict[str, Any]:
        """The resources of each process, as Ray's options of an actor."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": 1 / self.per_gpu if self.gpus else 0,
            # Beside a GPU many threads decode, which would wait for each other at the one arena.
            "runtime_env": {"env_vars": {} if self.gpus else MALLOC_ENV},
        }


def cluster_cores() -> int:
    """Return the number of cores of the connected cluster.

    A local Ray has more CPUs than the machine has cores, so that the stages never wait for each other.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = sum(node.get("CPU", 0) for node in nodes)
    return int(min(cpus, os.cpu_count() or 1) if len(nodes) == 1 else cpus)


def _share(cores: int, workers: int, on_nodes: Sequence[int]) -> int:
    """Return how many threads each worker has: an even share of the cores, of which each node holds whole ones."""
    threads = max(1, cores // workers)
    while threads > 1 and on_nodes and sum(node // threads for node in on_nodes) < workers:
        threads -= 1
    return threads


def _reserved(cpus: float, workers: int, threads: int, *, gpus: int, free: bool) -> int:
    """Return how many CPUs each worker reserves; beside GPUs at most half of them are."""
    if gpus:
        return 1 if not cpus or cpus >= max(2 * workers, SMALL_CLUSTER_CPUS) else 0
    return 0 if free else threads


def plan_workers(*, device: str, workers: int, threads: int, per_gpu: int = 1) -> WorkerPlan:
    """Plan the processes of a stream on the connected cluster.

    Nodes of a cluster at `RAY_ADDRESS` may start on demand. So a number of workers that is given with a device is
    planned even if there is no room for it now, and so is one worker if there are no CPUs at all.

    Args:
        device: auto, cpu or cuda.
        workers: The number of processes; 0: `per_gpu` for each GPU, or one for each core, at most 8 on a machine.
        threads: The number of threads of each; 0: an even share of the cores.
        per_gpu: The most processes that share a GPU.

    Raises:
        ConfigError: if the cluster has no room for them, or for cuda:N.
    """
    if device.startswith("cuda:"):
        raise ConfigError(
            f"--device is {device!r}, but Ray chooses the GPU of each process; use --device cuda, and set "
            "CUDA_VISIBLE_DEVICES where Ray starts to leave GPUs out"
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    cpus = sum(node.get("CPU", 0) for node in nodes)
    on_demand = "RAY_ADDRESS" in os.environ and ((device != "auto" and workers > 0) or not cpus)
    if device.startswith("cuda"):
        gpus = max(gpus, -(-workers // per_gpu)) if on_demand else gpus
        if not gpus:
            raise ConfigError(
                f"--device is {device!r}, but the Ray cluster has no GPU; "
                "if its nodes start on demand, give their number with --workers"
            )
    if device == "cpu":
        gpus = 0
    # If the processes reserve CPUs, a quarter is left to read tasks.
    free = gpus > 0 or (cpus < SMALL_CLUSTER_CPUS and not on_demand)
    cores = cluster_cores()
    cores = cores if free else int(cores * 0.75)
    chosen = workers or gpus * per_gpu or int(max(1, min(cores, MAX_CPU_WORKERS_PER_NODE * len(nodes))))
    on_nodes = [] if free or on_demand else [int(node.get("CPU", 0)) for node in nodes]
    threads = threads or (0 if gpus else _share(cores, chosen, on_nodes))
    fits = chosen <= (gpus * per_gpu or max(cores, workers if free else 0)) and (free or chosen * threads <= cores)
    fits = fits and (not on_nodes or sum(node // threads for node in on_nodes) >= chosen)
    if not (fits or on_demand):
        raise ConfigError(
            f"{chosen} workers of {threads} threads do not fit the cluster's {cpus:.0f} CPUs and {gpus} GPUs; "
            "choose fewer with --workers, or --threads"
        )
    return WorkerPlan(
        workers=chosen,
        threads=threads,
        # One process reads 1,000 pictures a second, and a GPU takes many times that.
        fetchers=max(chosen, cluster_cores() // CORES_PER_FETCHER) if gpus else chosen,
        gpus=gpus,
        per_gpu=per_gpu,
        decodes_apart=gpus > 0
        and any(node.get("CPU", 0) >= (CORES_TO_DECODE if node.get("GPU") else 1) for node in nodes),
        cpus=_reserved(cpus, chosen, threads, gpus=gpus, free=free),
    )
