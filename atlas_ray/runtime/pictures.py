"""The start of every stream: a catalogue's pictures with their bytes."""

from collections.abc import Sequence
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from atlas_ray.formats.tables import Table
from atlas_ray.runtime.fetch import Fetch
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.runtime.settings import OUTAGE_S
from atlas_ray.runtime.source import read_table
from atlas_ray.runtime.workers import WorkerPlan


def fetched_pictures(
    table: Table,
    board: Any,
    plan: WorkerPlan,
    *,
    block_rows: int,
    fetch_threads: int,
    timeout_s: float,
    outage_s: float = OUTAGE_S,
    columns: Sequence[str] = KEYS,
    read: bool = True,
) -> ray.data.Dataset:
    """Read a table of pictures and their bytes.

    Args:
        table: A catalogue's images, or another table with `KEYS`, opened.
        board: The run's progress.
        plan: The processes that follow; as many fetch, at most.
        block_rows: Pictures a block.
        fetch_threads: Objects read at a time by each fetching process.
        timeout_s: Seconds for one request to the object store.
        outage_s: Seconds that the store may be away; then the stream ends with an `OutageError`.
        columns: What to read of the table.
        read: Whether to read the bytes; without, every row is one without a picture.
    """
    return (
        read_table(table, columns)
        .repartition(target_num_rows_per_block=block_rows)
        .map_batches(
            Fetch,
            fn_constructor_args=(board,),
            fn_constructor_kwargs={
                "threads": fetch_threads,
                "timeout_s": timeout_s,
                "outage_s": outage_s,
                "read": read,
            },
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=1, max_size=max(1, plan.workers)),
            num_cpus=0 if plan.free else 1,
        )
    )
