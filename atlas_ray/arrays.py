"""NumPy arrays beside Arrow columns: their names in signatures, and the steps between the two that many stages take."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Array = np.ndarray[Any, np.dtype[Any]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]
PLACES = np.random.default_rng(0).integers(1, 2**64 - 1, 4096, np.uint64)
"""The numbers of `text_hashes`."""


def numbered(column: pa.ChunkedArray) -> tuple[pa.Array, Integers]:
    """Return the different values of a column, and which of them each row has, (rows,)."""
    values = pc.unique(column)
    return values, pc.index_in(column, values).to_numpy()


def text_hashes(texts: pa.ChunkedArray) -> Array:
    """Return a hash of each text, (rows,) uint64, the same in every process; null is as an empty text.

    The sum of a text's bytes, each times a number drawn for its place: fast, and good to part rows by.
    """
    if not len(texts):
        return np.zeros(0, np.uint64)
    joined = texts.cast(pa.large_binary()).combine_chunks()
    _, offsets, data = joined.buffers()
    ends = np.frombuffer(offsets, np.int64)[joined.offset :][: len(joined) + 1]
    signs = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    ends = ends - ends[0]
    places = np.arange(len(signs)) - np.repeat(ends[:-1], np.diff(ends))
    sums = np.concatenate(
        [np.zeros(1, np.uint64), ((signs + np.uint64(1)) * PLACES[places % len(PLACES)]).cumsum(dtype=np.uint64)]
    )
    hashes: Array = sums[ends[1:]] - sums[ends[:-1]]
    return hashes


def list_offsets(lengths: Array) -> pa.Array:
    """Return the offsets, (lists + 1,), of lists of these lengths."""
    return pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32())


def row_at(places: Array, size: int, rows: Array | None = None) -> Integers:
    """Return which row stands at each of `size` places; -1 if none does.

    Args:
        places: (rows,) where each row goes.
        size: How many places there are.
        rows: (rows,) their numbers; in order if it is None.
    """
    found = np.full(size, -1)
    found[places] = np.arange(len(places)) if rows is None else rows
    return found


def or_null(rows: Array) -> pa.Array:
    """Return rows to take; those below 0 give null."""
    return pa.array(rows, mask=rows < 0)


def scatter(column: Any, places: Array, size: int) -> Any:
    """Return a column or a table of `size` rows, with its rows at `places` and null elsewhere."""
    return column.take(or_null(row_at(places, size)))


def first_of_each(group: Array, *by: Array) -> Booleans:
    """Return which row of each group comes first, (rows,) bool.

    Args:
        group: (rows,) the group of each.
        by: (rows,) what they are ordered by, the least first; the next decides between equal ones, at last their order.
    """
    order = np.lexsort((*reversed(by), group))
    first = np.zeros(len(group), bool)
    first[order[np.unique(group[order], return_index=True)[1]]] = True
    return first


def matrix(column: pa.ChunkedArray) -> Array:
    """Return a column of lists of one length, without nulls, as (rows, length)."""
    joined = column.combine_chunks()
    rows: Array = joined.flatten().to_numpy().reshape(len(joined), joined.type.list_size)
    return rows


def tagged(table: pa.Table, kind: int, schema: pa.Schema) -> pa.Table:
    """Bring a block of one table into the common shape."""
    columns = []
    for field in schema:
        if field.name == "kind":
            columns.append(pa.array(np.full(len(table), kind, dtype=np.int8)))
        elif field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    return pa.table(columns, schema=schema)
