"""Records of the products that a model was fitted on, as hashes of their ids, so that it is not measured on them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

TRAINED, FUSED, CALIBRATED = 1, 2, 4
"""Bits of `use`: a product was used to train weights, to fit a fusion policy, or to fit a temperature."""
LAYOUT = np.dtype([("product", "<u8"), ("use", "u1")])


def product_keys(product_ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return 8 bytes of a hash of each product's id, (products,)."""
    digests = b"".join(
        hashlib.blake2b(product_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for product_id in product_ids
    )
    return np.frombuffer(digests, "<u8").astype(np.uint64)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Products, and what each was used for."""

    products: NDArray[np.uint64]
    """(count,) hashed keys of the products, each once, sorted."""
    use: NDArray[np.uint8]
    """(count,) for each product, the bits of what it was used for."""

    @classmethod
    def of(cls, keys: NDArray[np.uint64], use: int) -> Self:
        """Take products that were all used for the same."""
        products = np.unique(keys)
        return cls(products, np.full(len(products), use, np.uint8))

    def __or__(self, other: "Fitted") -> "Fitted":
        """Return the products of both, with all that they were used for."""
        products, place = np.unique(np.concatenate([self.products, other.products]), return_inverse=True)
        use = np.zeros(len(products), np.uint8)
        np.bitwise_or.at(use, place, np.concatenate([self.use, other.use]))
        return Fitted(products, use)

    def uses(self, product_ids: Iterable[str]) -> NDArray[np.uint8]:
        """Return what each of some products was used for, (products,) bits; 0: nothing."""
        keys = product_keys(product_ids)
        if not len(self.products):
            return np.zeros(len(keys), np.uint8)
        at = np.searchsorted(self.products, keys).clip(max=len(self.products) - 1)
        return np.where(self.products[at] == keys, self.use[at], 0).astype(np.uint8)
