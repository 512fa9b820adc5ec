"""A source of Ray Data that reads the tables of `atlas_ray.formats.tables`.

The read task itself brings rows into their final shape. So Ray's checkpoint, which removes finished rows right after
the read, sees the same picture ids as later stages.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from atlas_ray.runtime.session import connect


class Rows(Protocol):
    """Rows that any process can read, such as `atlas_ray.formats.tables.Piece`."""

    @property
    def rows(self) -> int:
        """The approximate number of rows."""

    @property
    def bytes(self) -> int:
        """The approximate size in memory."""

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows in parts."""


class Pieces(Protocol):
    """Rows that are cut into pieces, such as `atlas_ray.formats.tables.Table`."""

    @property
    def rows(self) -> int:
        """The number of rows."""

    def pieces(self, columns: Sequence[str] | None = None, count: int = 1) -> Sequence[Rows]:
        """Cut some columns into about `count` pieces."""


Shape = Callable[[Iterable[pa.Table]], Iterable[pa.Table]]
"""A function of the tables that a task reads, which returns those that it gives."""


class TableSource(Datasource):
    """A source of rows that are read in pieces."""

    def __init__(self, pieces: Callable[[int], Sequence[Rows]], shape: Shape = iter) -> None:
        """Prepare the source.

        Args:
            pieces: A function that cuts the rows into about this many pieces.
            shape: The function of the tables that a task reads.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._pieces = pieces
        self._shape = shape

    def get_name(self) -> str:
        """Return the name of the operator."""
        return "Tables"

    def estimate_inmemory_data_size(self) -> int:
        """Return the approximate size of all rows in memory."""
        return sum(piece.bytes for piece in self._pieces(1))

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,  # noqa: ARG002 - Ray gives it by name
    ) -> list[ReadTask]:
        """Distribute the pieces to at most `parallelism` tasks, in order."""
        pieces = self._pieces(parallelism)
        ends = np.cumsum([piece.rows for piece in pieces])
        task = (ends - 1) * parallelism // max(int(ends[-1]), 1) if len(pieces) else np.zeros(0, int)
        shares = [[pieces[at] for at in np.flatnonzero(task == number).tolist()] for number in np.unique(task)] or [[]]
        return [
            ReadTask(
                functools.partial(_read, share, self._shape),
                BlockMetadata(
                    num_rows=None, size_bytes=sum(piece.bytes for piece in share), exec_stats=None, input_files=None
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for share in shares
        ]


def _read(pieces: Sequence[Rows], shape: Shape) -> Iterable[pa.Table]:
    return shape(table for piece in pieces for table in piece.tables())


def read_source(source: Datasource, *, blocks: int | None = None) -> ray.data.Dataset:
    """Read a source as a stream of about `blocks` blocks.

    It connects first, because Ray Data would otherwise start a Ray with a dashboard and logs.
    """
    connect()
    dataset: ray.data.Dataset = ray.data.read_datasource(source, override_num_blocks=blocks)
    return dataset


def read_table(table: Pieces, columns: Sequence[str], *, blocks: int | None = None) -> ray.data.Dataset:
    """Read columns of a table as a stream, in the shape that it was opened in.

    Args:
        table: A table of `open_table`, or rows like it.
        columns: The columns.
        blocks: The approximate number of blocks; None to let Ray choose.
    """
    return read_source(TableSource(functools.partial(table.pieces, columns)), blocks=blocks)
