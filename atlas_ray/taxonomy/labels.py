"""The labels of a taxonomy: the names of its levels, so that a product has several."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from atlas_ray.arrays import Integers
from atlas_ray.errors import TaxonomyError
from atlas_ray.taxonomy.tree import CategoryPath, Taxonomy, format_path

TARGETS = ("path", "labels")
"""The kinds of a model's answer: one category path, or each label by itself."""
Targets = np.ndarray[Any, np.dtype[np.bool_]]


class LabelSpace:
    """Labels of a taxonomy in a fixed order.

    Each level of a category path is a label of the products below it (Wirojwatanakul and Wangperawong 2019); a product
    of several paths has the labels of all of them. If a name has parents of different names, each is a label of its
    own, `parent > name`; at the top it is the name alone.
    """

    def __init__(self, taxonomy: Taxonomy, names: Sequence[str] | None = None) -> None:
        """Take labels.

        Args:
            taxonomy: Whose.
            names: Which of them; None for all, in the tree's order.

        Raises:
            TaxonomyError: if there is none, one stands twice, or the taxonomy has no such label.
        """
        parents: dict[str, set[str]] = {}
        for path in taxonomy.nodes:
            parents.setdefault(path[-1], set()).add(_parent(path))
        label_of = {path: _label(path, parents) for path in taxonomy.nodes}
        known = dict.fromkeys(label_of.values())
        self.taxonomy = taxonomy
        self.names = tuple(known if names is None else names)
        position = {name: index for index, name in enumerate(self.names)}
        if not self.names or len(position) != len(self.names):
            raise TaxonomyError(f"expected one label or more, each once; found {list(self.names)[:10]}")
        if unknown := [name for name in self.names if name not in known]:
            raise TaxonomyError(f"the taxonomy {taxonomy.name!r} has no label {unknown[0]!r}")
        self._position = {path: position.get(label) for path, label in label_of.items()}

    @classmethod
    def common(cls, taxonomy: Taxonomy, products: Sequence[int], min_products: int) -> "LabelSpace":
        """Return the labels that enough products have.

        Args:
            taxonomy: Whose labels.
            products: How many have each label of the taxonomy, in the order of `LabelSpace(taxonomy).names`.
            min_products: How many a label needs.

        Raises:
            TaxonomyError: if no label has as many, naming the most common one.
        """
        names = cls(taxonomy).names
        kept = [name for name, count in zip(names, products, strict=True) if count >= min_products]
        if not kept:
            count, name = max(zip(products, names, strict=True), key=lambda pair: pair[0])
            raise TaxonomyError(f"no label has {min_products} products or more; the most, {count}, has {name!r}")
        return cls(taxonomy, kept)

    def __len__(self) -> int:
        return len(self.names)

    def of(self, path: CategoryPath) -> list[int]:
        """Return the labels of a category path, each once, from the top; those that are not taken are left out.

        Raises:
            TaxonomyError: if the taxonomy has no such path.
        """
        try:
            positions = [self._position[path[:level]] for level in range(1, len(path) + 1)]
        except KeyError as error:
            raise TaxonomyError(
                f"{format_path(error.args[0])!r} is not in the taxonomy {self.taxonomy.name!r}"
            ) from None
        return list(dict.fromkeys(label for label in positions if label is not None))

    @functools.cached_property
    def of_leaves(self) -> Targets:
        """Which labels each leaf of the taxonomy has, (leaves, labels)."""
        return self.targets(self.taxonomy.leaves)

    def targets(self, paths: Iterable[CategoryPath]) -> Targets:
        """Return which labels each of some category paths has, (paths, labels).

        Raises:
            TaxonomyError: as `of`.
        """
        rows = [self.of(path) for path in paths]
        table = np.zeros((len(rows), len(self)), np.bool_)
        owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        table[owner, [label for row in rows for label in row]] = True
        return table


def united(has: Targets, leaf: Integers, first: Integers) -> Targets:
    """Return which labels products have over all of their category paths, (products, labels).

    Args:
        has: (leaves, labels) which labels each leaf has: `LabelSpace.targets` of the taxonomy's leaves.
        leaf: (pairs,) the positions of the products' leaves, those of a product side by side.
        first: (products,) where the leaves of each product begin; each has one or more.
    """
    if not len(first):
        return np.zeros((0, has.shape[1]), np.bool_)
    table: Targets = np.logical_or.reduceat(has[leaf], first, axis=0)
    return table


def _parent(path: CategoryPath) -> str:
    return path[-2] if len(path) > 1 else ""


def _label(path: CategoryPath, parents: dict[str, set[str]]) -> str:
    return format_path(path[-2:]) if len(parents[path[-1]]) > 1 else path[-1]
