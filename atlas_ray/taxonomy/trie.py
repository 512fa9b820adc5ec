"""The taxonomy compiled to index arrays: which tokens may follow which prefix."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlas_ray.errors import TaxonomyError
from atlas_ray.taxonomy.tree import CategoryPath, Taxonomy
from atlas_ray.taxonomy.vocabulary import Vocabulary

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Trie:
    """A taxonomy in breadth-first order; node 0 is the root, the empty path.

    Nodes of one level are contiguous, and so are the children of one node. N nodes, L leaves.
    """

    token: Indices
    """(N,) the token that leads to each node; <start> for the root."""
    parent: Indices
    """(N,) the parent of each node; -1 for the root."""
    level: Indices
    """(N,) 0 for the root, 1 for the top level."""
    first_child: Indices
    """(N,) the first child of each node."""
    child_count: Indices
    """(N,) 0 for a leaf."""
    leaf: Indices
    """(N,) the position of each node in `leaves`, -1 for an inner node."""
    leaves: tuple[CategoryPath, ...]
    """The category paths that may be predicted, in the taxonomy's order."""
    leaf_node: Indices
    """(L,) the node of each leaf."""
    label_node: Indices
    """(N - 1,) the node of each label, in the order of `Taxonomy.label_positions`: of each leaf, then of the others."""
    leaf_tokens: Indices
    """(L, depth) the tokens of each leaf's path, padded with <pad>."""
    level_start: Indices
    """(depth + 2,) where each level's nodes start; the last entry is N."""
    vocabulary_size: int

    @property
    def depth(self) -> int:
        """The deepest level."""
        return len(self.level_start) - 2

    @property
    def inner_count(self) -> int:
        """How many nodes an exact search expands, the root included."""
        return int((self.child_count > 0).sum())


def compile_trie(taxonomy: Taxonomy, vocabulary: Vocabulary) -> Trie:
    """Compile a taxonomy against a model's vocabulary.

    The taxonomy may be a part or another order of the one that the model was trained on.

    Raises:
        TaxonomyError: naming the names that the model has no token for.
    """
    missing = vocabulary.missing(name for path in taxonomy.nodes for name in path)
    if missing:
        shown = ", ".join(repr(name) for name in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise TaxonomyError(
            f"the model has no token for {shown}{more} of the taxonomy {taxonomy.name!r}; "
            "it can only predict names that it was trained on"
        )
    children = taxonomy.children
    order: list[CategoryPath] = [()]
    token, parent, first_child, child_count = [1], [-1], [], []
    for position, path in enumerate(order):  # grows while it is walked: breadth first
        below = children.get(path, [])
        first_child.append(len(order))
        child_count.append(len(below))
        order.extend(below)
        token.extend(vocabulary.encode(tuple(child[-1] for child in below)))
        parent.extend([position] * len(below))
    level = np.array([len(path) for path in order])
    node_of = {path: node for node, path in enumerate(order)}
    label_node = np.array([node_of[path] for path in taxonomy.label_positions])
    leaf_node = label_node[: len(taxonomy.leaves)]
    leaf = np.full(len(order), -1)
    leaf[leaf_node] = np.arange(len(leaf_node))
    token_of = np.array(token)
    parent_of = np.array(parent)
    leaf_tokens = np.zeros((len(leaf_node), int(level.max())), dtype=np.int64)
    at = leaf_node
    while (at > 0).any():  # climb from all leaves at once
        above = at > 0
        leaf_tokens[above, level[at[above]] - 1] = token_of[at[above]]
        at = np.where(above, parent_of[at], 0)
    return Trie(
        token=token_of,
        parent=parent_of,
        level=level,
        first_child=np.array(first_child),
        child_count=np.array(child_count),
        leaf=leaf,
        leaves=taxonomy.leaves,
        leaf_node=leaf_node,
        label_node=label_node,
        leaf_tokens=leaf_tokens,
        level_start=np.searchsorted(level, np.arange(int(level.max()) + 2)),
        vocabulary_size=len(vocabulary),
    )
