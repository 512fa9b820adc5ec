"""The decoder's vocabulary: one token a level name, and three special ones."""

from collections.abc import Iterable, Sequence

from atlas_ray.errors import TaxonomyError
from atlas_ray.taxonomy.tree import CategoryPath, Taxonomy, format_path

PAD, START, END = 0, 1, 2
SPECIAL = ("<pad>", "<start>", "<end>")


class Vocabulary:
    """Tokens by index. A name that stands at several places of the tree is one token."""

    def __init__(self, tokens: Sequence[str]) -> None:
        """Take the tokens in their order, the three special ones first.

        Raises:
            TaxonomyError: if the special tokens are missing or a token stands twice.
        """
        if tuple(tokens[:3]) != SPECIAL:
            raise TaxonomyError(f"a vocabulary starts with {SPECIAL}, this one with {tuple(tokens[:3])}")
        self.tokens = tuple(tokens)
        self._index = {token: index for index, token in enumerate(self.tokens)}
        if len(self._index) != len(self.tokens):
            raise TaxonomyError("a vocabulary holds the same token twice")

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> "Vocabulary":
        """Return the vocabulary of a taxonomy: its names, in the order they appear."""
        names = dict.fromkeys(name for path in taxonomy.nodes for name in path)
        return cls([*SPECIAL, *names])

    def __len__(self) -> int:
        return len(self.tokens)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names that have no token, each once."""
        return [name for name in dict.fromkeys(names) if name not in self._index]

    def encode(self, path: CategoryPath) -> list[int]:
        """Return the tokens of a path, without the special ones.

        Raises:
            TaxonomyError: if a name has no token.
        """
        try:
            return [self._index[name] for name in path]
        except KeyError as error:
            raise TaxonomyError(f"the model has no token for {error.args[0]!r} of {format_path(path)!r}") from None
