"""Decoded pictures in shared memory, from which each epoch takes its rows."""

import functools
from typing import Any

import numpy as np
import ray
from ray.data.block import BlockAccessor

from atlas_ray.arrays import Integers
from atlas_ray.errors import ConfigError
from atlas_ray.training.data import BLOCK_ROWS, shuffled

LARGEST_SHARE = 0.4
"""The share of a machine's object store that decoded pictures may take; batches on their way need the rest."""


class Cached:
    """A split that was decoded once, in blocks in Ray's object store. Each machine that reads has a copy."""

    def __init__(self, decoded: ray.data.Dataset, rows: int = BLOCK_ROWS) -> None:
        """Decode the pictures.

        Args:
            decoded: As of `with_pixels`, in any order.
            rows: The number of rows of the blocks that are read.
        """
        self._rows = rows
        self._decoded = decoded.materialize()  # while it lives, its blocks do
        bundles = self._decoded.iter_internal_ref_bundles()
        blocks = [(entry.ref, entry.metadata.num_rows) for bundle in bundles for entry in bundle.blocks]
        self._blocks = tuple(block for block, _ in blocks)
        self._ends = np.cumsum([count for _, count in blocks])

    def read(self, *, shuffle_seed: int | None) -> ray.data.Dataset:
        """Return the rows of `decoded`; with a seed they are shuffled anew each epoch."""
        rows = ray.data.range(int(self._ends[-1]) if len(self._ends) else 0)
        rows = rows if shuffle_seed is None else shuffled(rows, shuffle_seed=shuffle_seed)
        take = functools.partial(_take, blocks=self._blocks, ends=self._ends)
        return rows.repartition(target_num_rows_per_block=self._rows).map_batches(
            take, batch_size=None, batch_format="numpy"
        )


def check_room(pictures: int, image_size_px: int) -> None:
    """Check that decoded pictures fit into the shared memory of each machine of the cluster.

    Raises:
        ConfigError: if they do not.
    """
    needed = pictures * 3 * image_size_px**2  # bytes
    stores = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    if needed > (room := LARGEST_SHARE * min(stores)):
        raise ConfigError(
            f"--cache: {pictures} pictures of {image_size_px} px take {needed / 2**30:.1f} GiB, and a machine's object "
            f"store has room for {room / 2**30:.1f}; train without --cache, or on machines with more memory"
        )


def _take(batch: dict[str, Any], blocks: tuple[Any, ...], ends: Integers) -> dict[str, Any]:
    """Return rows of the blocks by their numbers."""
    numbers = batch["id"]
    which = np.searchsorted(ends, numbers, side="right")
    columns: dict[str, Any] = {}
    for part, rows in ((part, np.flatnonzero(which == part)) for part in np.unique(which)):
        first = ends[part - 1] if part else 0
        for name, column in _columns(blocks)[part].items():
            if name not in columns:
                columns[name] = np.empty((len(numbers), *column.shape[1:]), column.dtype)
            columns[name][rows] = column[numbers[rows] - first]
    return columns


@functools.lru_cache(maxsize=4)  # of two splits, and of those of a restart
def _columns(blocks: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Return the columns of each block, which are views of the shared memory."""
    columns: list[Any] = [BlockAccessor.for_block(block).to_numpy() for block in ray.get(list(blocks))]
    return columns
