"""The stages that every stream begins with: a catalogue's pictures with their bytes, and a model that reads them."""

from collections.abc import Callable, Sequence
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from atlas_ray.runtime.fetch import Fetch, Gate
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.runtime.settings import ReadConfig
from atlas_ray.runtime.source import Pieces, read_table
from atlas_ray.runtime.workers import WorkerPlan


def stream_pictures(
    table: Pieces,
    progress: Any,
    plan: WorkerPlan,
    config: ReadConfig,
    *,
    block_rows: int,
    columns: Sequence[str] = KEYS,
    read: bool = True,
    make_gate: Callable[[], Gate] | None = None,
) -> ray.data.Dataset:
    """Read a table of pictures and their bytes.

    Args:
        table: A catalogue's images, or another opened table with `KEYS`.
        progress: The run's `ProgressActor`.
        plan: The processes that fetch, among others.
        config: The settings of reading.
        block_rows: Number of pictures in a block.
        columns: Columns to read of the table.
        read: Whether to read the bytes; otherwise every row is one without a picture.
        make_gate: Makes, in each process that fetches, what tells which pictures do not have to be read.
    """
    fetch = {
        "threads": config.fetch_threads,
        "timeout_s": config.timeout_s,
        "outage_s": config.outage_s,
        "read": read,
        "make_gate": make_gate,
    }
    return (
        read_table(table, columns)
        .repartition(target_num_rows_per_block=block_rows)
        .map_batches(
            Fetch,
            fn_constructor_args=(progress,),
            fn_constructor_kwargs=fetch,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            # Two blocks at a time: while the last objects of one are waited for, the threads read the next.
            compute=ActorPoolStrategy(
                min_size=1,
                max_size=plan.fetchers,
                max_concurrent_calls_per_actor=2,
                enable_true_multi_threading=True,
            ),
            num_cpus=plan.fetcher_cpus,
        )
    )


def ask_model(stream: ray.data.Dataset, plan: WorkerPlan, model: Any, /, *args: Any, **kwargs: Any) -> ray.data.Dataset:
    """Run a model over the blocks of a stream, in the processes of a plan.

    Args:
        stream: Blocks of pictures.
        plan: The number of processes, and what each reserves.
        model: A class, of which each process makes an object and calls it with blocks.
        args: Arguments of its constructor.
        kwargs: Keyword arguments of its constructor.
    """
    return stream.map_batches(
        model,
        fn_constructor_args=args,
        fn_constructor_kwargs=kwargs,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(min_size=1, max_size=plan.workers, initial_size=plan.workers),
        **plan.actor_options,
    )
