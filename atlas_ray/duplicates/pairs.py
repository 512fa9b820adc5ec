"""Pairs of fingerprints that are near, found by bands of equal bits."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from atlas_ray.arrays import Integers
from atlas_ray.duplicates.sizes import Fingerprints

# rows: fingerprints

BAND_BITS = 16
"""Bits of a band that are compared at most; fewer only let more rows be compared."""
MAX_BUCKET = 256
"""Rows of an equal key that each row is compared with; more would make crowded keys quadratic."""
MAX_PAIRS = 2**24
"""Pairs after which `MIN_ENOUGH` neighbours of a row are enough: about half a GiB with what is made of them."""
MIN_ENOUGH = 8
MERGE_PAIRS = 2**20
"""Pairs that wait at least, before `Joined` looks for those that are not needed."""


@dataclass(frozen=True)
class NearPairs:
    """Pairs of rows or of ids, and the number of bits in which they differ."""

    left: Integers
    right: Integers
    distance: Integers

    def __len__(self) -> int:
        return len(self.left)

    @classmethod
    def concat(cls, parts: Iterable[Self]) -> Self:
        """Return all pairs of several, which may be none."""
        columns = zip(*((part.left, part.right, part.distance) for part in parts), strict=True)
        joined = [np.concatenate(column) for column in columns] or [np.zeros(0, np.int64)] * 3
        return cls(*joined)

    def spanning(self) -> Self:
        """Return those pairs that tell as much: a minimum spanning forest, at most one pair a row.

        With all pairs up to any distance, it joins the same rows as these pairs do, and each row has its closest one.
        """
        nodes, ends = np.unique(np.stack([self.left, self.right]), return_inverse=True)
        left, right = np.sort(ends.reshape(2, -1), axis=0)
        _, once = np.unique(
            left * len(nodes) + right, return_index=True
        )  # the sparse matrix would add up repeated ones
        graph = coo_array((self.distance[once], (left[once], right[once])), shape=(len(nodes), len(nodes)))
        tree = minimum_spanning_tree(graph.tocsr()).tocoo()
        return type(self)(nodes[tree.row], nodes[tree.col], tree.data.astype(np.int64))


class Joined:
    """A growing spanning forest of pairs, which holds no more than two or three pairs a row."""

    def __init__(self) -> None:
        self._parts = [NearPairs.concat([])]

    def add(self, pairs: NearPairs) -> None:
        """Add some pairs."""
        self._parts.append(pairs)
        if sum(map(len, self._parts[1:])) > max(len(self._parts[0]), MERGE_PAIRS):
            self.pairs()

    def pairs(self) -> NearPairs:
        """Return the forest of all pairs until now."""
        self._parts = [NearPairs.concat(self._parts).spanning()]
        return self._parts[0]


def band_edges(bits: int, max_distance: int) -> Integers:
    """Return where the bands of so many bits begin, and where the last one ends: `max_distance + 3` places.

    Of `max_distance + 2` bands a pair of that distance has at least two that are equal.
    """
    return np.linspace(0, bits, max_distance + 3).astype(np.int64)


def band(fingerprints: Fingerprints, low: int, high: int) -> Fingerprints:
    """Return bits `low` to `high` of each row, (rows,), at most `BAND_BITS` of them."""
    word, shift = divmod(low, 64)
    width = min(high - low, BAND_BITS)
    found: Fingerprints = fingerprints[:, word] >> np.uint64(shift)
    if shift + width > 64:
        found |= fingerprints[:, word + 1] << np.uint64(64 - shift)
    return found & np.uint64((1 << width) - 1)


def near_pairs(
    fingerprints: Fingerprints, max_distance: int, *, enough: int, of_band: Sequence[Integers] | None = None
) -> NearPairs:
    """Find the pairs of fingerprints that differ in at most `max_distance` bits, each pair once.

    Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Exact Search in Hamming Space with
    Multi-Index Hashing", 2014): of `max_distance + 2` bands of bits, such a pair has at least two
    that are equal. So the rows are sorted by each two bands in turn, and each row is compared with
    those that follow it with an equal key.

    Left out, to keep the work in proportion to the rows: pairs further apart than `MAX_BUCKET` rows
    of one key, and most further pairs of a row that has `enough`; from `MAX_PAIRS` pairs on, fewer are.

    Args:
        fingerprints: (rows, words) uint64, no two of them equal; all zero is near to nothing.
        max_distance: In bits.
        enough: Neighbours after which a row is known to be one of many.
        of_band: For each band but the last, the rows, ascending, to compare by it and a later one; by default all.
    """
    rows = np.flatnonzero(fingerprints.any(axis=1))
    places = list(itertools.pairwise(band_edges(64 * fingerprints.shape[1], max_distance).tolist()))
    neighbours = np.zeros(len(fingerprints), np.int64)
    found = np.array([2**64 - 1], np.uint64)  # left row << 32 | right row, sorted; the last is none
    for number, first in enumerate(places[:-1]):
        mine = (rows if of_band is None else of_band[number]).astype(np.uint64)
        for second in places[number + 1 :]:
            # Of the rows that have enough, some stay, for the others to be found by.
            most = enough if len(found) < MAX_PAIRS else min(enough, MIN_ENOUGH)
            mine = mine[(neighbours[mine] < most) | (mine % 32 == 0)]
            words = fingerprints[mine]
            keyed = np.sort((band(words, *first) << BAND_BITS | band(words, *second)) << 32 | mine)
            close = _close(fingerprints, keyed, max_distance, most)
            close = close[found[np.searchsorted(found, close)] != close]
            if len(close):
                found = np.insert(found, np.searchsorted(found, close), close)
                for ends in _rows(close):
                    neighbours += np.bincount(ends, minlength=len(neighbours))
    left, right = _rows(found[:-1])
    return NearPairs(left, right, _differing_bits(fingerprints[left], fingerprints[right]))


def _close(fingerprints: Fingerprints, keyed: Fingerprints, max_distance: int, enough: int) -> Fingerprints:
    """Return the pairs of rows of an equal key that are near, as left row << 32 | right row, sorted."""
    keys, rows = _rows(keyed)
    matches = np.zeros(len(rows), np.int64)
    pairs, total = [np.zeros(0, np.uint64)], 0
    at = np.flatnonzero(keys[1:] == keys[:-1])
    for step in range(1, MAX_BUCKET + 1):
        if not len(at) or total > MAX_PAIRS:
            break
        left, right = rows[at], rows[at + step]  # rows of an equal key are in their order, so left < right
        close = _differing_bits(fingerprints[left], fingerprints[right]) <= max_distance
        matches[at[close]] += 1
        total += int(np.count_nonzero(close))
        pairs.append(left[close].astype(np.uint64) << np.uint64(32) | right[close].astype(np.uint64))
        at = at[: np.searchsorted(at, len(rows) - step - 1)]
        at = at[(keys[at + step + 1] == keys[at]) & (matches[at] < enough)]
    return np.sort(np.concatenate(pairs))


def _rows(pairs: Fingerprints) -> tuple[Integers, Integers]:
    """Return the upper and the lower 32 bits."""
    return (pairs >> 32).astype(np.int64), (pairs & 0xFFFFFFFF).astype(np.int64)


def _differing_bits(left: Fingerprints, right: Fingerprints) -> Integers:
    bits: Integers = np.bitwise_count(left ^ right).sum(axis=1, dtype=np.int64)
    return bits
