"""Repeated values of a large table, counted among a part of them that hashes choose."""

from collections.abc import Sequence

import numpy as np

from atlas_ray.arrays import Array
from atlas_ray.catalog.hashes import hash_texts

MAX_VALUES = 1_000_000
"""Different values that are counted at most; of more, a part is."""
TOP = np.uint64(2**64 - 1)


class Repeats:
    """Counts how often values stand, for every value whose hash is small enough.

    A value is counted with all of its rows or with none, so that the part tells of the whole.
    """

    def __init__(self, most: int = MAX_VALUES) -> None:
        """Begin without a value."""
        self._most = most
        self._limit = TOP
        self._hashes, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def add(self, values: Sequence[str]) -> None:
        """Count some values."""
        hashes = hash_texts(values)
        both = np.concatenate([self._hashes, hashes[hashes <= self._limit]])
        counts = np.concatenate([self._counts, np.ones(len(both) - len(self._counts), np.int64)])
        self._hashes, inverse = np.unique(both, return_inverse=True)
        self._counts = np.bincount(inverse, weights=counts, minlength=len(self._hashes)).astype(np.int64)
        if len(self._hashes) > self._most:
            self._limit = self._hashes[self._most // 2]
            kept = self._hashes <= self._limit
            self._hashes, self._counts = self._hashes[kept], self._counts[kept]

    @property
    def is_exact(self) -> bool:
        """Whether all values were counted."""
        return bool(self._limit == TOP)

    @property
    def share(self) -> float | None:
        """The share of the rows whose value stands more than once; None if there is no row."""
        total = int(self._counts.sum())
        return float(self._counts[self._counts > 1].sum() / total) if total else None

    @property
    def most(self) -> int:
        """How often the most frequent of the counted values stands."""
        return int(self._counts.max(initial=0))


class Sample:
    """The rows with the smallest hashes of their ids, a fixed number of them."""

    def __init__(self, size: int) -> None:
        """Begin without a row."""
        self._size = size
        self._hashes = np.zeros(0, np.uint64)
        self.rows: Array = np.zeros(0, object)

    def add(self, ids: Sequence[str], rows: Sequence[object]) -> None:
        """Offer some rows."""
        hashes = np.concatenate([self._hashes, hash_texts(ids)])
        values = np.empty(len(rows), object)
        values[:] = rows
        values = np.concatenate([self.rows, values])
        order = np.argsort(hashes, kind="stable")[: self._size]
        self._hashes, self.rows = hashes[order], values[order]
