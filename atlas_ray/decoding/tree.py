"""The trie as tensors on a device, laid out for the searches."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from atlas_ray.taxonomy import Trie


class TrieTensors:
    """A trie on a device. N nodes, I inner nodes, L leaves, P labels, C the most children of a node.

    Attributes:
        trie: What was compiled.
        token: (N,) the token that leads to each node.
        leaf: (N,) each node's position among the leaves, -1 for an inner node.
        ancestors: (L, depth) the nodes on the way to each leaf; -1 past its end.
        leaf_node: (L,) the node of each leaf.
        leaf_length: (L,) the level of each leaf.
        label_paths: (P, depth) the nodes on the way to each label (`Taxonomy.label_positions`); its first rows are
            `ancestors`.
        label_length: (P,) the level of each label.
    """

    def __init__(self, trie: Trie, device: torch.device | str = "cpu") -> None:
        self.trie = trie
        self.device = torch.device(device)
        self.token = torch.from_numpy(trie.token).to(device)
        self.leaf = torch.from_numpy(trie.leaf).to(device)
        self.leaf_node = torch.from_numpy(trie.leaf_node).to(device)
        self.label_length = torch.from_numpy(trie.level[trie.label_node]).to(device)
        self.leaf_length = self.label_length[: len(trie.leaves)]
        paths = np.full((len(trie.label_node), trie.depth), -1)
        at = trie.label_node
        while (at > 0).any():
            above = at > 0
            paths[above, trie.level[at[above]] - 1] = at[above]
            at = np.where(above, trie.parent[at], 0)
        self.label_paths = torch.from_numpy(paths).to(device)
        self.ancestors = self.label_paths[: len(trie.leaves)]

    def is_below(self, leaf: Tensor, label: Tensor) -> Tensor:
        """Return whether leaves are at or below the nodes of labels, bool; positions of both, which broadcast."""
        level = self.label_length[label] - 1
        return self.label_paths[leaf, level] == self.label_paths[label, level]

    @cached_property
    def leaf_tokens(self) -> Tensor:
        """(L, depth) the tokens on the way to each leaf, `PAD` past its end."""
        return torch.from_numpy(self.trie.leaf_tokens).to(self.device)

    @cached_property
    def children(self) -> Tensor:
        """(N, C) the children of each node, -1 past their end."""
        trie = self.trie
        column = np.arange(max(int(trie.child_count.max()), 1))
        table = np.where(column < trie.child_count[:, None], trie.first_child[:, None] + column, -1)
        return torch.from_numpy(table).to(self.device)

    @cached_property
    def levels(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """What `exact_search` does at each level, from the root down.

        For each level: `inner`, the inner nodes to expand; `source`, the position of each one's
        parent among the inner nodes of the level above; `below`, all nodes of the next level;
        `parent`, the position of each of those one's parent in `inner`.
        """
        trie, levels, above = self.trie, [], np.array([-1])
        for level in range(trie.depth):
            nodes = np.arange(trie.level_start[level], trie.level_start[level + 1])
            inner = nodes[trie.child_count[nodes] > 0]
            below = np.arange(trie.level_start[level + 1], trie.level_start[level + 2])
            parts = (
                inner,
                np.searchsorted(above, trie.parent[inner]),
                below,
                np.searchsorted(inner, trie.parent[below]),
            )
            a, b, c, d = (torch.from_numpy(part).to(self.device) for part in parts)
            levels.append((a, b, c, d))
            above = inner
        return levels
