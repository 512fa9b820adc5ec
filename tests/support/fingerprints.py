"""Fingerprints that no picture has, as many as are wanted."""

from typing import Any

import numpy as np
import pyarrow as pa

from atlas_ray.duplicates.detect import FINGERPRINTED, fingerprint_column
from atlas_ray.duplicates.sizes import BITS, WORDS


def made_up(start: int, rows: int, total: int) -> pa.Table:
    """Return some rows of random fingerprints, of `total`.

    A tenth are near another one; each twentieth shows one placeholder in as many versions, one placeholder in the same
    bytes, or one colour.
    """
    here = np.arange(start, start + rows)
    share = here * 20 // total  # twentieths
    first = np.select([share // 2 == 1, share == 10, share == 12], [here - total // 10, -1, -2], here)
    prints = splitmix(first[:, None] * WORDS + np.arange(WORDS))
    draws = np.random.default_rng(start)
    for changed, flips in ((share // 2 == 1, 12), (share == 10, 4)):
        for _ in range(flips):
            bit = draws.integers(0, BITS, rows)
            prints[here - start, bit // 64] ^= np.where(changed, np.uint64(1) << (bit % 64).astype(np.uint64), 0)
    prints[share == 14] = 0
    contents = splitmix(np.where(share == 12, -2, here))
    names = pa.array(here).cast(pa.string())
    columns = {"image_id": pa.array(here), "product_id": names, "image_uri": names}
    columns["sha256"] = pa.array(np.frombuffer(contents.byteswap().tobytes().hex().encode(), "S16")).cast(pa.string())
    return pa.table(columns | {"fingerprint": fingerprint_column(prints)}).select(FINGERPRINTED.names)


def splitmix(numbers: Any) -> Any:
    """Return a random number, uint64, for each whole number."""
    mixed = numbers.astype(np.int64).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)
