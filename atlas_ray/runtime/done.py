"""The pictures that are done: their distinct ids, 8 bytes each, in the object store and not on the driver."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from atlas_ray.arrays import Booleans, Integers
from atlas_ray.errors import FetchError, StorageError
from atlas_ray.io.objects import ObjectReader
from atlas_ray.runtime.session import connect

PART_IDS = 10_000_000
"""About how many ids are sorted at a time."""
TASK_ROWS = 5_000_000
"""About how many rows a task reads."""
FILES_AT_ONCE = 256
"""Number of files that a task holds."""
MAX_FILE_BYTES = 2**30
"""The size of the largest file that is read; those of a run with 100,000,000 pictures have a fifth of a megabyte."""


@dataclass(frozen=True)
class DoneIds:
    """Ids of pictures; the tasks of a machine share them."""

    parts: tuple[Any, ...]
    """References to sorted arrays: each id is in the part of its remainder by their number."""
    count: int

    def left(self, table: pa.Table) -> pa.Table:
        """Leave out the rows whose `image_id` is done."""
        ids = table["image_id"].to_numpy()
        part = ids % len(self.parts)
        done = np.zeros(len(ids), bool)
        for number, known in enumerate(ray.get(list(self.parts))):
            rows = np.flatnonzero(part == number)
            done[rows] = is_in_sorted(ids[rows], known)
        return table.filter(pa.array(~done))


def is_in_sorted(values: Integers, known: Integers) -> Booleans:
    """Return which values a sorted array has, (values,) bool."""
    if not len(known):
        return np.zeros(len(values), bool)
    found: Booleans = known[np.searchsorted(known, values).clip(max=len(known) - 1)] == values
    return found


def load_done(files: Sequence[str], rows: int, *, failed: bool = True) -> DoneIds:
    """Read the ids of the pictures in some files.

    Args:
        files: Parquet files of this program, with `image_id`.
        rows: About how many rows they have.
        failed: Whether pictures that have an `error_code` count as done.
    """
    connect()
    parts = max(1, -(-rows // PART_IDS))
    tasks = max(1, min(len(files), -(-rows // TASK_ROWS)))
    read: Any = ray.remote(_read).options(num_returns=parts)
    merge: Any = ray.remote(_merge).options(num_returns=2)
    shares = [read.remote(share.tolist(), parts, failed) for share in np.array_split(np.array(files, str), tasks)]
    shares = [share if parts > 1 else [share] for share in shares]
    merged = [merge.remote(*(share[part] for share in shares)) for part in range(parts)]
    return DoneIds(tuple(ids for ids, _ in merged), sum(ray.get([count for _, count in merged])))


def _read(files: Sequence[str], parts: int, failed: bool) -> Any:
    reader = ObjectReader(max_bytes=MAX_FILE_BYTES)  # one request a file, of which there are thousands
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(files), FILES_AT_ONCE):
        some = files[start : start + FILES_AT_ONCE]
        found += [_ids(file, content, failed) for file, content in zip(some, reader.read_many(some), strict=True)]
    ids = np.concatenate(found)
    split = [ids[ids % parts == part] for part in range(parts)]
    return split if parts > 1 else split[0]  # as many objects as Ray expects


def _ids(file: str, content: bytes | FetchError, failed: bool) -> Integers:
    if isinstance(content, FetchError):
        raise StorageError(f"{file}: {content.message}")
    table = pq.read_table(pa.BufferReader(content), columns=["image_id"] if failed else ["image_id", "error_code"])
    table = table if failed else table.filter(pc.is_null(table["error_code"]))
    ids: Integers = table["image_id"].to_numpy()
    return ids


def _merge(*shares: Integers) -> tuple[Integers, int]:
    ids = np.unique(np.concatenate(shares))
    return ids, len(ids)
