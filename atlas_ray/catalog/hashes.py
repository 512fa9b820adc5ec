"""Hashes of texts, by which a part of a catalogue is drawn that does not depend on its order."""

import hashlib
from collections.abc import Iterable

import numpy as np

from atlas_ray.arrays import Array


def hash_texts(texts: Iterable[str], seed: int = 0) -> Array:
    """Return a hash of each text, (texts,) uint64: the same in every process."""
    key = str(seed).encode()
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest() for text in texts
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)
