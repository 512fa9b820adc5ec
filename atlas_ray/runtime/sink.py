"""Where outcomes go: one write task makes a file for each way a picture can go."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import ray.data
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import BlockBasedFileDatasink, FilenameProvider, WriteResult

from atlas_ray.io import storage

Split = Callable[[pa.Table], dict[str, pa.Table]]
Count = Callable[[pa.Table], Mapping[str, int]]


class TaskNames(FilenameProvider):
    """The same name for a task's first try and its retries, so that a retry replaces its files."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        """Name the file of a write task."""
        return f"{self._prefix}{write_uuid}_{task_index:06d}.parquet"


class OutcomeSink(BlockBasedFileDatasink):
    """Writes blocks of outcomes below a run's folder.

    It is a file sink to Ray Data, so that Ray's checkpoint commits a task's picture ids after its
    files are written.
    """

    def __init__(
        self,
        output: str,
        board: Any = None,
        *,
        split: Split,
        rows_per_file: int | None = None,
        empty: pa.Table | None = None,
        prefix: str = "",
        count: Count | None = None,
    ) -> None:
        """Prepare the sink.

        Args:
            output: The run's folder.
            board: The run's progress, where it wants to know how long the writing took.
            split: Tells which rows of a block go to which folder below the output. It names every
                folder each time, empty or not.
            rows_per_file: Rows a file, at least.
            empty: What a task without rows writes, so that each folder has files of a schema; else there are none.
            prefix: The beginning of the files' names.
            count: Counts the rows of a task, for `counts`.
        """
        place = storage.locate(output)
        super().__init__(
            place.path,
            filesystem=place.filesystem,
            filename_provider=TaskNames(prefix),
            file_format="parquet",
            min_rows_per_file=rows_per_file,
        )
        self._output = output
        self._board = board
        self._split = split
        self._empty = empty
        self._count = count
        self.counts = Counter[str]()
        """What `count` said of all tasks, once they are done."""

    def write(self, blocks: Iterable[Block], ctx: Any) -> Mapping[str, int]:  # type: ignore[override]
        """Write one task's outcomes, and return their counts."""
        started = time.time()
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        tables = [table for table in tables if len(table)] or [self._empty]
        if tables[0] is None:
            return {}
        table = pa.concat_tables(tables)
        name = self.filename_provider.get_filename_for_task(ctx.kwargs["write_uuid"], ctx.task_idx)
        for folder, rows in self._split(table).items():
            uri = storage.join(self._output, folder, name)
            with storage.in_the_middle(uri):
                if len(rows) or self._empty is not None:
                    storage.write_table(uri, rows)
                else:
                    storage.delete_file(uri)  # an earlier try of this task may have had some
        if self._board is not None:
            self._board.span.remote("write", started, time.time())
        return {} if self._count is None else self._count(table)

    def on_write_complete(self, write_result: WriteResult[Any]) -> None:
        """Add up the counts of all tasks."""
        super().on_write_complete(write_result)
        for counts in write_result.write_returns:
            self.counts.update(counts)


def write_table(stream: ray.data.Dataset, output: str, name: str) -> None:
    """Write a stream as the table of a name below an output; no row makes an empty folder."""
    storage.make_folder(storage.join(output, name))
    stream.write_datasink(OutcomeSink(output, split=functools.partial(_whole, name=name)))


def _whole(table: pa.Table, name: str) -> dict[str, pa.Table]:
    return {name: table}
