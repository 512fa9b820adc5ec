"""The probabilities of a product, which are the mean over its pictures (Wirojwatanakul and Wangperawong 2019).

A path or label that a picture does not list counts as 0 there. A picture that could not be read only has the product's
texts: it does not count beside pictures that were read, and without those it counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atlas_ray.arrays import Array, Booleans, first_of_each
from atlas_ray.taxonomy import Taxonomy


@dataclass(frozen=True)
class Means:
    """The paths or labels of products with their probabilities, by product and the most probable first."""

    product: Array
    """(pairs,) the number of the product."""
    answer: Array
    """(pairs,) the number of the path or label."""
    probability: Array
    """(pairs,)"""

    @property
    def place(self) -> Array:
        """(pairs,) 0 for the best answer of each product, then 1 and so on."""
        place: Array = np.arange(len(self.product)) - np.searchsorted(self.product, self.product)
        return place

    def best(self, products: int) -> tuple[Array, Array]:
        """Return the best answer of each product and its probability, (products,) each; -1 and 0 if it has none."""
        best, probability = np.full(products, -1), np.zeros(products)
        first = self.place == 0
        best[self.product[first]], probability[self.product[first]] = self.answer[first], self.probability[first]
        return best, probability


@dataclass(frozen=True)
class Listed:
    """The paths or labels that are listed for pictures."""

    picture: Array
    """(listed,) the number of the picture."""
    answer: Array
    """(listed,) the number of the path or label."""
    probability: Array
    """(listed,)"""
    product: Array
    """(pictures,) the number of the product of each picture."""
    pictures: Array
    """(products,) the number of pictures of each product."""

    def means(self) -> Means:
        """Return the mean probability of each answer over a product's pictures; equal ones by their number."""
        answers = int(self.answer.max(initial=0)) + 1
        pairs, inverse = np.unique(self.product[self.picture] * answers + self.answer, return_inverse=True)
        product = pairs // answers
        total = np.bincount(inverse, weights=self.probability, minlength=len(pairs))
        mean = total / np.maximum(self.pictures[product], 1)
        order = np.lexsort((pairs, -mean, product))
        return Means(product[order], pairs[order] % answers, mean[order])


class ListedPaths(Listed):
    """The paths that are listed for pictures."""

    def levels(self, nodes: Array, best: Array, first: Array, first_levels: Array) -> Array:
        """Return the probability of each prefix of the products' paths, (products, depth); 0 past a path's end.

        If a picture's best path has the prefix, its probability there is known; otherwise it is the sum of the
        picture's listed paths that have it.

        Args:
            nodes: The result of `path_nodes`.
            best: (products,) the path of each product; -1 for none.
            first: (pictures,) the best path of each picture.
            first_levels: (pictures, depth) the probability of each of its prefixes.
        """
        mean = np.zeros((len(best), nodes.shape[1]))
        for level, node in enumerate(nodes.T):
            wanted = node[best][self.product]
            shared = self.probability * (node[self.answer] == wanted[self.picture])
            listed = np.bincount(self.picture, weights=shared, minlength=len(first))
            each = np.where(node[first] == wanted, first_levels[:, level], listed) * (wanted >= 0)
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


def label_nodes(taxonomy: Taxonomy) -> Array:
    """Return `path_nodes` of a taxonomy's labels, the leaves first (`Taxonomy.label_positions`)."""
    return path_nodes(tuple(taxonomy.label_positions))


def is_below(nodes: Array, leaf: Array, label: Array) -> Booleans:
    """Return whether leaves are at or below the nodes of labels; positions of both, which broadcast.

    Args:
        nodes: The result of `label_nodes`.
        leaf: -1 for none, which is below nothing.
        label: Positions of labels.
    """
    level = (nodes[label] >= 0).sum(-1) - 1
    below: Booleans = nodes[leaf, level] == nodes[label, level]
    return below


def has_a_say(product: Array, seen: Array) -> Booleans:
    """Return which pictures count, (pictures,) bool: those that were read, or one of a product without such.

    Args:
        product: (pictures,) the number of the product of each picture.
        seen: (pictures,) whether the picture was read.
    """
    has_seen = np.bincount(product, weights=seen) > 0
    counts: Booleans = seen | (first_of_each(product) & ~has_seen[product])
    return counts
