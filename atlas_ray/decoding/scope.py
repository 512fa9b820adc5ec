"""The part of a taxonomy that a search may answer with."""

from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_ray.decoding.searches import choose_search
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.errors import TaxonomyError
from atlas_ray.schemas import CATEGORY_PATH
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie, format_path


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
    lengths: NDArray[Any]
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
