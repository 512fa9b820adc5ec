"""A seeded, stratified split that needs no second pass."""

import hashlib
from collections import Counter

from atlas_ray.errors import ConfigError
from atlas_ray.taxonomy import CategoryPath

SPLITS = ("train", "val", "test")
GOLDEN = 0.6180339887498949


def parse_shares(text: str) -> tuple[float, float, float]:
    """Read `65/5/30` as the shares of train, val and test.

    Raises:
        ConfigError: for anything but three numbers that are not negative, the first above 0.
    """
    try:
        parts = [float(part) for part in text.split("/")]
    except ValueError:
        parts = []
    if len(parts) != 3 or min(parts) < 0 or not parts[0] > 0:
        raise ConfigError(f"split {text!r}; expected TRAIN/VAL/TEST, such as 65/5/30")
    total = sum(parts)
    return parts[0] / total, parts[1] / total, parts[2] / total


class StratifiedSplit:
    """Assigns products to splits as they stream by, each category path on its own.

    The products of a path follow a golden-ratio sequence with a seeded start, which fills every
    split in proportion after any number of products; memory is one count a path. The first product
    of a path always goes to train, so that no path is only ever tested.
    """

    def __init__(self, shares: tuple[float, float, float], seed: int) -> None:
        self._edges = (shares[0], shares[0] + shares[1])
        self._seed = seed
        self._seen: Counter[CategoryPath] = Counter()

    def assign(self, path: CategoryPath) -> str:
        """Return the split of the next product of this path."""
        position = self._seen[path]
        self._seen[path] += 1
        if position == 0:
            return "train"
        digest = hashlib.blake2b(f"{self._seed}\x1f{path}".encode(), digest_size=8).digest()
        point = (int.from_bytes(digest) / 2**64 + position * GOLDEN) % 1.0
        return SPLITS[(point >= self._edges[0]) + (point >= self._edges[1])]
