"""The sink of outcomes; each write task makes a file for each kind of outcome."""

import functools
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import BlockBasedFileDatasink, FilenameProvider, WriteResult

from atlas_ray.io import storage
from atlas_ray.runtime.progress import tell_block

Split = Callable[[pa.Table], dict[str, pa.Table]]
"""A function that splits the rows of a block by the folder that they go to. It returns each folder, even if empty."""
Count = Callable[[pa.Table], Mapping[str, int]]
"""A function that counts the rows of a task by outcome."""


class TaskNames(FilenameProvider):
    """File names that are the same for all tries of a task, so that a retry replaces the files."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        """Return the name of a write task's file."""
        return f"{self._prefix}{write_uuid}_{task_index:06d}.parquet"


class OutcomeSink(BlockBasedFileDatasink):
    """A sink that writes blocks of outcomes into a run's folder.

    To Ray Data it is a file sink, so that Ray's checkpoint commits the picture ids of a task after its files.
    """

    def __init__(
        self,
        output: str,
        progress: Any = None,
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
            progress: The run's `ProgressActor`, if the time of writing is measured.
            split: A function of a block.
            rows_per_file: The least number of rows in a file.
            empty: The block that a task without rows writes, so that each folder has a file with its schema; without
                it there is no file.
            prefix: The beginning of the files' names.
            count: A function of a task's rows, whose results are added up in `counts`.
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
        self._progress = progress
        self._split = split
        self._empty = empty
        self._count = count
        self.counts = Counter[str]()
        """The sums of `count` over all tasks, once they are done."""

    def write(self, blocks: Iterable[Block], ctx: Any) -> Mapping[str, int]:  # type: ignore[override]
        """Write the outcomes of a task, and return their counts."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        return self._write(tables, ctx.kwargs["write_uuid"], ctx.task_idx)

    def write_here(self, table: pa.Table) -> None:
        """Write all rows from this process, without Ray."""
        self.counts.update(self._write([table], uuid.uuid4().hex, 0))

    def _write(self, tables: Sequence[pa.Table], write_id: str, task: int) -> Mapping[str, int]:
        started = time.time()
        tables = [table for table in tables if len(table)] or [self._empty]
        if tables[0] is None:
            return {}
        table = pa.concat_tables(tables)
        name = self.filename_provider.get_filename_for_task(write_id, task)
        for folder, rows in self._split(table).items():
            uri = storage.join(self._output, folder, name)
            with storage.in_the_middle(uri):
                if len(rows) or self._empty is not None:
                    storage.write_table(uri, rows)
                else:
                    storage.delete_file(uri)  # an earlier try of this task may have had rows
        if self._progress is not None:
            tell_block(self._progress, {}, write=(started, time.time()))
        return {} if self._count is None else self._count(table)

    def on_write_complete(self, write_result: WriteResult[Any]) -> None:
        """Add up the counts of all tasks."""
        super().on_write_complete(write_result)
        for counts in write_result.write_returns:
            self.counts.update(counts)


def write_table(
    write: Callable[[OutcomeSink], None], output: str, name: str, count: Count | None = None
) -> Counter[str]:
    """Write rows as a table with this name in an output; without rows it is an empty folder.

    Args:
        write: Writes the rows to a sink.
        output: The output.
        name: The table's name.
        count: As in `OutcomeSink`.

    Returns:
        The sums of `count` over the rows.
    """
    storage.make_folder(storage.join(output, name))
    sink = OutcomeSink(output, split=functools.partial(_whole, name=name), count=count)
    write(sink)
    return sink.counts


def _whole(table: pa.Table, name: str) -> dict[str, pa.Table]:
    return {name: table}
