"""The constrained searches by name: what `--search` offers. Importing this imports no torch."""

import pkgutil
from collections import ChainMap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from atlas_ray.decoding.posterior import Posterior
    from atlas_ray.decoding.step import StepFunction
    from atlas_ray.decoding.tree import TrieTensors

EXACT_NODE_BUDGET = 256
"""`auto` searches exactly while the trie has at most this many inner nodes."""


class SearchFunction(Protocol):
    """A search's function; see `beam_search` for its arguments."""

    def __call__(
        self, step: "StepFunction", tree: "TrieTensors", *, width: int = 5, top_k: int = 5, temperature: float = 1.0
    ) -> "Posterior":
        """Find the best `top_k` paths of each picture."""
        ...


@dataclass(frozen=True)
class Search:
    """A way to find the best paths of a taxonomy."""

    find: SearchFunction
    summary: str
    """What it does, for the help of `--search`."""
    max_inner_nodes: int | None = None
    """The largest trie that `auto` chooses it for, in inner nodes; None: any."""


def _lazily(name: str) -> SearchFunction:
    """Return a search of this package whose module is imported when it is called."""

    def call(*arguments: Any, **settings: Any) -> Any:
        return pkgutil.resolve_name(f"{__package__}.{name}")(*arguments, **settings)

    return call


SEARCHES: dict[str, Search] = {
    "exact": Search(_lazily("exact:exact_search"), "the probability of every path", max_inner_nodes=EXACT_NODE_BUDGET),
    "beam": Search(_lazily("beam:beam_search"), "the best prefixes at each level"),
}
SEARCH_CHOICES: ChainMap[str, Any] = ChainMap(SEARCHES, {"auto": None})
"""What `--search` may be: `auto`, the names of `SEARCHES`, and those that are added to it later."""
SEARCH_HELP = (
    "; ".join(f"{name}: {search.summary}" for name, search in SEARCHES.items())
    + f"; auto: exact up to {EXACT_NODE_BUDGET} inner nodes of the taxonomy, else beam"
)


def choose_search(name: str, tree: "TrieTensors") -> str:
    """Return the name of a search; of `auto`, the first of `SEARCHES` that takes a trie of this size."""
    if name != "auto":
        return name
    inner = tree.trie.inner_count
    return next(
        name for name, search in SEARCHES.items() if search.max_inner_nodes is None or inner <= search.max_inner_nodes
    )
