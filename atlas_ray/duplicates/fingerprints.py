"""Fingerprints of pictures: bits that stay when a picture is recompressed, resized, brightened or cropped a little."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from atlas_ray.arrays import Integers

# batch: pictures; size: side of the given pixels; grid: GRID_PX; rows: fingerprints

GRID_PX = 32
SHAPE_BITS = 256
COLOUR_CELLS = 4
COLOUR_STEPS = (-15.0, -5.0, 5.0, 15.0)
BITS = SHAPE_BITS + 2 * COLOUR_CELLS**2 * len(COLOUR_STEPS)
WORDS = BITS // 64
FLAT_DEVIATION = 2.0
"""Standard deviation, in grey levels of 255, below which a picture is one colour and some noise."""

MAX_BUCKET = 256
"""Rows of an equal key that each row is compared with; more would make crowded keys quadratic."""

Fingerprints = np.ndarray[Any, np.dtype[np.uint64]]


def fingerprint(pixels: Tensor) -> Fingerprints:
    """Return the perceptual hash of each picture of a batch.

    Two thirds of the bits are its shape: the signs of the lowest frequencies of the grey picture's cosine
    transform (pHash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
    2010). The constant frequency is left out, so brightness is no part of it. A third is its colour,
    because shops show one shirt in ten colours in the same pose: red minus grey and blue minus grey of
    each of 4x4 cells, each compared with four thresholds.

    Args:
        pixels: (batch, 3, size, size) uint8, RGB; `GRID_PX` is the size that costs least.

    Returns:
        (batch, WORDS) uint64; all zero if the picture is of one colour, which has no fingerprint.
    """
    colours = pixels.float()
    if colours.shape[-1] != GRID_PX:
        colours = interpolate(colours, (GRID_PX, GRID_PX), mode="bilinear", antialias=True)
    grey = torch.tensordot(colours, torch.tensor([0.299, 0.587, 0.114]), dims=([1], [0]))  # (batch, grid, grid)
    basis = _cosines()
    spectrum = basis @ grey @ basis.T  # (batch, grid, grid)
    shape = spectrum.flatten(1)[:, _lowest()] > 0  # (batch, SHAPE_BITS)
    cells = adaptive_avg_pool2d(colours[:, ::2] - grey[:, None], COLOUR_CELLS)  # (batch, 2, cells, cells)
    colour = (cells[..., None] > torch.tensor(COLOUR_STEPS)).flatten(1)  # (batch, BITS - SHAPE_BITS)
    bits = torch.cat([shape, colour], dim=1)
    # Any run of bits gets frequencies low and high, and colours: those alone are much alike among pictures.
    bits = bits[:, torch.arange(BITS) * 37 % BITS]
    variance = (grey - grey.mean(dim=(1, 2), keepdim=True)).square().mean(dim=(1, 2))  # (batch,)
    bits &= (variance >= FLAT_DEVIATION**2)[:, None]
    return np.packbits(bits.numpy(), axis=1).view(np.uint64)


def _cosines() -> Tensor:
    """Return the orthonormal basis of the cosine transform, DCT-II: (frequency, position)."""
    frequency = torch.arange(GRID_PX)[:, None]
    position = torch.arange(GRID_PX)[None]
    basis: Tensor = torch.cos(torch.pi * frequency * (2 * position + 1) / (2 * GRID_PX)) * (2 / GRID_PX) ** 0.5
    basis[0] /= 2**0.5
    return basis


def _lowest() -> Tensor:
    """Return the places of the lowest frequencies but the constant one, (SHAPE_BITS,)."""
    frequency = torch.arange(GRID_PX)
    radius = frequency[:, None] ** 2 + frequency**2  # (grid, grid)
    order: Tensor = radius.flatten().argsort(stable=True)
    return order[1 : SHAPE_BITS + 1]


@dataclass(frozen=True)
class NearPairs:
    """Pairs of rows, each pair once, and the number of bits in which they differ."""

    left: Integers
    right: Integers
    distance: Integers


def near_pairs(fingerprints: Fingerprints, max_distance: int, *, enough: int) -> NearPairs:
    """Find the pairs of fingerprints that differ in at most `max_distance` bits.

    Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Exact Search in Hamming Space with
    Multi-Index Hashing", 2014): of `max_distance + 2` bands of bits, such a pair has at least two
    that are equal. So the rows are sorted by each two bands in turn, and each row is compared with
    those that follow it with an equal key.

    Left out, to keep the work in proportion to the rows: pairs further apart than `MAX_BUCKET` rows
    of one key, and most further pairs of a row that has `enough`.

    Args:
        fingerprints: (rows, words) uint64, no two of them equal; all zero is near to nothing.
        max_distance: In bits.
        enough: Neighbours after which a row is known to be one of many.
    """
    rows = np.flatnonzero(fingerprints.any(axis=1)).astype(np.uint64)
    edges = np.linspace(0, 64 * fingerprints.shape[1], max_distance + 3).astype(int)
    bands = [_band(fingerprints, int(low), int(high)) for low, high in itertools.pairwise(edges)]
    neighbours = np.zeros(len(fingerprints), np.int64)
    found = np.array([2**64 - 1], np.uint64)  # left row << 32 | right row, sorted; the last is none
    for first, second in itertools.combinations(bands, 2):
        # Of the rows that have enough, some stay, for the others to be found by.
        rows = rows[(neighbours[rows] < enough) | (rows % 32 == 0)]
        keyed = np.sort((first[rows] << 16 | second[rows]) << 32 | rows)
        close = _close(fingerprints, keyed, max_distance, enough)
        close = close[found[np.searchsorted(found, close)] != close]
        if len(close):
            found = np.insert(found, np.searchsorted(found, close), close)
            for ends in _rows(close):
                neighbours += np.bincount(ends, minlength=len(neighbours))
    left, right = _rows(found[:-1])
    return NearPairs(left, right, _differing_bits(fingerprints[left], fingerprints[right]))


def _band(fingerprints: Fingerprints, low: int, high: int) -> Fingerprints:
    """Return bits `low` to `high` of each row, (rows,), at most 16 of them: fewer only let more rows be compared."""
    word, shift = divmod(low, 64)
    width = min(high - low, 16)
    band: Fingerprints = fingerprints[:, word] >> np.uint64(shift)
    if shift + width > 64:
        band |= fingerprints[:, word + 1] << np.uint64(64 - shift)
    return band & np.uint64((1 << width) - 1)


def _close(fingerprints: Fingerprints, keyed: Fingerprints, max_distance: int, enough: int) -> Fingerprints:
    """Return the pairs of rows of an equal key that are near, as left row << 32 | right row, sorted."""
    keys, rows = _rows(keyed)
    matches = np.zeros(len(rows), np.int64)
    pairs: list[Fingerprints] = [np.zeros(0, np.uint64)]
    at = np.flatnonzero(keys[1:] == keys[:-1])
    for step in range(1, MAX_BUCKET + 1):
        if not len(at):
            break
        left, right = rows[at], rows[at + step]  # rows of an equal key are in their order, so left < right
        close = _differing_bits(fingerprints[left], fingerprints[right]) <= max_distance
        matches[at[close]] += 1
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
