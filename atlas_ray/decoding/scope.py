"""What a search may answer with, and its answers as columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from atlas_ray.decoding.posterior import Posterior
from atlas_ray.decoding.searches import choose_search
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.errors import TaxonomyError
from atlas_ray.schemas import ALTERNATIVE, CATEGORY_PATH, PREDICTIONS
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie, format_path

PREDICTED = (
    "category_path",
    "probability",
    "level_probabilities",
    "alternatives",
    "outside_probability",
)
"""The columns of the predictions table that a search fills."""


@dataclass(frozen=True)
class Scope:
    """The leaves of a taxonomy, or of a part of it, as tensors."""

    taxonomy: Taxonomy
    tree: TrieTensors
    search: str
    """One of `SEARCHES`."""
    classes: Tensor | None
    """(leaves,): a classifier's class of each leaf."""
    paths: pa.Array
    """Each leaf's path."""
    lengths: "np.ndarray[Any, np.dtype[Any]]"
    """(leaves,): each leaf's level."""

    @classmethod
    def of(
        cls,
        taxonomy: Taxonomy,
        vocabulary: Vocabulary,
        device: torch.device,
        *,
        search: str = "auto",
        trained_on: Taxonomy | None = None,
    ) -> Self:
        """Compile a taxonomy.

        Args:
            taxonomy: What may be answered.
            vocabulary: The model's tokens.
            device: Where the tensors go.
            search: One of `SEARCH_CHOICES`.
            trained_on: For a classifier, the taxonomy whose leaves are its classes.

        Raises:
            TaxonomyError: naming a name or a leaf that the model does not know.
        """
        tree = TrieTensors(compile_trie(taxonomy, vocabulary), device)
        return cls(
            taxonomy=taxonomy,
            tree=tree,
            search=choose_search(search, tree),
            classes=torch.tensor(leaf_classes(trained_on, taxonomy), device=device) if trained_on else None,
            paths=pa.array([list(path) for path in tree.trie.leaves], CATEGORY_PATH),
            lengths=tree.leaf_length.cpu().numpy(),
        )

    def table(self, found: Sequence[Posterior]) -> pa.Table:
        """Turn posteriors into the columns of `PREDICTED`, without a loop over pictures.

        A picture whose answer is no number has a row of nulls.
        """
        schema = pa.schema([PREDICTIONS.field(name) for name in PREDICTED])
        if not found:
            return schema.empty_table()

        def column(name: str) -> Any:
            return torch.cat([getattr(part, name) for part in found]).cpu().numpy()

        leaf, probability, there = column("leaf"), column("probability"), column("finite")
        best, gone = leaf[:, 0], ~there
        levels = column("level_probability")
        level_mask = (np.arange(levels.shape[1]) < self.lengths[best][:, None]) & there[:, None]
        kept = (leaf[:, 1:] >= 0) & there[:, None]
        alternatives = pa.StructArray.from_arrays(
            [self.paths.take(pa.array(leaf[:, 1:][kept])), pa.array(probability[:, 1:][kept])],
            fields=list(ALTERNATIVE),
        )
        return pa.table(
            [
                self.paths.take(pa.array(best, mask=gone)),
                pa.array(probability[:, 0], mask=gone),
                pa.ListArray.from_arrays(_offsets(level_mask), pa.array(levels[level_mask]), mask=pa.array(gone)),
                pa.ListArray.from_arrays(_offsets(kept), alternatives, mask=pa.array(gone)),
                pa.array(column("outside"), mask=gone),
            ],
            schema=schema,
        )


def leaf_classes(trained_on: Taxonomy, taxonomy: Taxonomy) -> list[int]:
    """Return a classifier's class of each leaf: its position in the taxonomy that it was trained on.

    Raises:
        TaxonomyError: naming a leaf that it was not trained on.
    """
    known = trained_on.leaf_positions
    for path in taxonomy.leaves:
        if path not in known:
            raise TaxonomyError(f"the model has no class for {format_path(path)!r}; it was not trained on it")
    return [known[path] for path in taxonomy.leaves]


def _offsets(mask: "np.ndarray[Any, np.dtype[np.bool_]]") -> pa.Array:
    """Return the list offsets of rows that keep what their mask says."""
    return pa.array(np.concatenate([[0], mask.sum(1).cumsum()]).astype(np.int32))
