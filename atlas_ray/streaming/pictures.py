"""The start of every stream: a catalogue's pictures with their bytes."""

from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from atlas_ray import storage
from atlas_ray.streaming.fetch import Fetch
from atlas_ray.streaming.outcomes import KEYS
from atlas_ray.streaming.workers import WorkerPlan


def fetched_pictures(
    catalog: str, board: Any, plan: WorkerPlan, *, block_rows: int, fetch_threads: int, timeout_s: float
) -> ray.data.Dataset:
    """Read the images table and the bytes of its pictures.

    Args:
        catalog: Its URI.
        board: The run's progress.
        plan: The processes that follow; as many fetch, at most.
        block_rows: Pictures a block.
        fetch_threads: Objects read at a time by each fetching process.
        timeout_s: Seconds for one request to the object store.
    """
    place = storage.locate(storage.join(catalog, "images"))
    stream = ray.data.read_parquet(place.path, filesystem=place.filesystem).select_columns(list(KEYS))
    return stream.repartition(target_num_rows_per_block=block_rows).map_batches(
        Fetch,
        fn_constructor_args=(board,),
        fn_constructor_kwargs={"threads": fetch_threads, "timeout_s": timeout_s},
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, plan.workers)),
        num_cpus=0 if plan.free else 1,
    )
