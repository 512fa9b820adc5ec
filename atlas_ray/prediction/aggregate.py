"""A product's probabilities, which are the mean over its pictures (Wirojwatanakul and Wangperawong 2019, late fusion).

A path that a picture does not list counts as 0 there. What goes by a product's texts alone, since its picture could not
be had, has no say beside a picture that was seen, and without one a single say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atlas_ray.arrays import Array, Booleans, first_of_each


@dataclass(frozen=True)
class Means:
    """The paths of products, each product's most probable first; of equal ones that of the lower number."""

    product: Array
    """(pairs,)"""
    path: Array
    """(pairs,)"""
    probability: Array
    """(pairs,) the mean over the product's pictures."""

    @property
    def place(self) -> Array:
        """(pairs,) 0 for each product's best, then 1 and so on."""
        place: Array = np.arange(len(self.product)) - np.searchsorted(self.product, self.product)
        return place

    def best(self, products: int) -> tuple[Array, Array]:
        """Return each product's best path and its probability, (products,) each; -1 and 0 where there is none."""
        best, probability = np.full(products, -1), np.zeros(products)
        first = self.place == 0
        best[self.product[first]], probability[self.product[first]] = self.path[first], self.probability[first]
        return best, probability


@dataclass(frozen=True)
class ListedPaths:
    """The paths that pictures list."""

    picture: Array
    """(listed,) the number of the picture."""
    path: Array
    """(listed,) the number of the path."""
    probability: Array
    """(listed,)"""
    product: Array
    """(pictures,) the number of the product of each picture."""
    pictures: Array
    """(products,) how many pictures each product has."""

    def means(self) -> Means:
        """Return the mean probability of each path over the pictures of a product."""
        paths = int(self.path.max(initial=0)) + 1
        pairs, inverse = np.unique(self.product[self.picture] * paths + self.path, return_inverse=True)
        product = pairs // paths
        total = np.bincount(inverse, weights=self.probability, minlength=len(pairs))
        mean = total / np.maximum(self.pictures[product], 1)
        order = np.lexsort((pairs, -mean, product))
        return Means(product[order], pairs[order] % paths, mean[order])

    def levels(self, nodes: Array, best: Array, own: Array, own_levels: Array) -> Array:
        """Return the probability of each prefix of the products' paths, (products, depth); 0 past a path's end.

        For a picture whose own path shares the prefix it is the picture's own; for another, the sum of
        its listed paths that share it.

        Args:
            nodes: As `path_nodes` returns them.
            best: (products,) the path of each product; -1 for none.
            own: (pictures,) the path of each picture.
            own_levels: (pictures, depth) the probability of each of its prefixes.
        """
        mean = np.zeros((len(best), nodes.shape[1]))
        for level, node in enumerate(nodes.T):
            wanted = node[best][self.product]
            shared = self.probability * (node[self.path] == wanted[self.picture])
            listed = np.bincount(self.picture, weights=shared, minlength=len(own))
            each = np.where(node[own] == wanted, own_levels[:, level], listed) * (wanted >= 0)
            total = np.bincount(self.product, weights=each, minlength=len(best))
            mean[:, level] = total / np.maximum(self.pictures, 1)
        return mean


def path_nodes(paths: Sequence[tuple[str, ...]]) -> Array:
    """Return the number of each path's node at each level, (paths + 1, depth).

    It is -1 past a path's end, and in the last row, which stands for no path.
    """
    numbers: dict[tuple[str, ...], int] = {}
    nodes = np.full((len(paths) + 1, max(map(len, paths), default=0)), -1, np.int32)
    for row, path in enumerate(paths):
        nodes[row, : len(path)] = [numbers.setdefault(path[:level], len(numbers)) for level in range(1, len(path) + 1)]
    return nodes


def has_a_say(product: Array, seen: Array) -> Booleans:
    """Return which pictures count, (pictures,) bool: those that were seen, or one of a product without any.

    Args:
        product: (pictures,) the number of the product of each picture.
        seen: (pictures,) whether its picture could be had.
    """
    has_seen = np.bincount(product, weights=seen) > 0
    counts: Booleans = seen | (first_of_each(product) & ~has_seen[product])
    return counts
