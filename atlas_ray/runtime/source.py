"""Tables as a source of Ray Data: what `atlas_ray.formats.tables` opened, read by as many tasks as there is work for.

The shape of rows is made in the reading task itself. So Ray's checkpoint, which leaves out what is done right after
the read, sees the picture ids that the later stages see.
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

from atlas_ray.formats.tables import Table
from atlas_ray.runtime.session import connect


class Rows(Protocol):
    """Some rows that can be read anywhere, such as `atlas_ray.formats.tables.Piece`."""

    @property
    def rows(self) -> int:
        """About how many there are."""

    @property
    def bytes(self) -> int:
        """About how much memory they take."""

    def tables(self) -> Iterator[pa.Table]:
        """Yield them, some at a time."""


Shape = Callable[[Iterable[pa.Table]], Iterable[pa.Table]]
"""Turns what a task reads into what it gives."""


class TableSource(Datasource):
    """Rows of tables, read piece by piece."""

    def __init__(self, pieces: Callable[[int], Sequence[Rows]], shape: Shape = iter) -> None:
        """Prepare the source.

        Args:
            pieces: Cuts what there is to read into about so many pieces.
            shape: What becomes of the tables that one task reads.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._pieces = pieces
        self._shape = shape

    def get_name(self) -> str:
        """Name the operator."""
        return "Tables"

    def estimate_inmemory_data_size(self) -> int:
        """Return about how much memory all rows take."""
        return sum(piece.bytes for piece in self._pieces(1))

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,  # noqa: ARG002 - Ray gives it by name
    ) -> list[ReadTask]:
        """Share the pieces out to at most `parallelism` tasks, in order."""
        pieces = self._pieces(parallelism)
        ends = np.cumsum([piece.rows for piece in pieces])
        task = (ends - 1) * parallelism // max(int(ends[-1]), 1) if len(pieces) else np.zeros(0, int)
        shares = [[pieces[at] for at in np.flatnonzero(task == one).tolist()] for one in np.unique(task)] or [[]]
        return [
            ReadTask(
                functools.partial(_read, share, self._shape),
                BlockMetadata(
                    num_rows=None, size_bytes=sum(one.bytes for one in share), exec_stats=None, input_files=None
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for share in shares
        ]


def _read(pieces: Sequence[Rows], shape: Shape) -> Iterable[pa.Table]:
    return shape(table for piece in pieces for table in piece.tables())


def read_source(source: Datasource, *, blocks: int | None = None) -> ray.data.Dataset:
    """Read a source as a stream, of about so many blocks.

    Ray Data would start a Ray of its own where none is there: one with a dashboard, that says all it does.
    """
    connect()
    dataset: ray.data.Dataset = ray.data.read_datasource(source, override_num_blocks=blocks)
    return dataset


def read_table(table: Table, columns: Sequence[str], *, blocks: int | None = None) -> ray.data.Dataset:
    """Read a table's columns as a stream, in the shape that it was opened in.

    Args:
        table: As `open_table` returns it.
        columns: Which.
        blocks: About how many blocks it is cut into; None: as Ray likes.
    """
    return read_source(TableSource(functools.partial(table.pieces, columns)), blocks=blocks)
