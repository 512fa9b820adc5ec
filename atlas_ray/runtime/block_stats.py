"""Dropping what Ray Data keeps on the driver of each finished block."""

from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback


class ForgetBlockStats(ExecutionCallback):
    """Drops the statistics of finished blocks while a stream runs.

    Ray Data keeps them to the end, about a kilobyte for each block and stage, for `Dataset.stats()`, which nothing
    here asks for. Of a hundred million pictures they would be gigabytes.
    """

    def on_execution_step(self, executor: Any) -> None:
        """Empty the lists of each operator."""
        for operator in executor._topology:
            for kept in operator.get_stats().values():
                kept.clear()
