"""A lookup of leaves as a person writes them: in any case, with any usual separator between the names."""

import difflib
import re
import unicodedata
from collections import defaultdict

from atlas_ray.taxonomy.tree import CategoryPath, Taxonomy, format_path

SEPARATORS = re.compile(r"\s*(?:->|=>|[>/\\|»›→;:])\s*")
"""A pattern of the separators that people write between the names of a path; names may contain them, too."""
MAX_SUGGESTIONS = 50
"""The most texts that are compared with all leaves, which takes 0.1 s for each in a large taxonomy."""


class LeafLookup:
    """Finds the leaf that a text names, or else the closest one."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        """Index the leaves of a taxonomy."""
        self._taxonomy = taxonomy
        self._paths: defaultdict[str, list[CategoryPath]] = defaultdict(list)
        for path in taxonomy.leaves:
            self._paths[_key(format_path(path))].append(path)
        self._suggestions: dict[str, CategoryPath | None] = {}

    def find(self, path: CategoryPath) -> CategoryPath | None:
        """Return the leaf that a path names; None if none does, or several do but for their case or separators.

        Args:
            path: Its names, or all of them in one, with separators between them.
        """
        written = path[0].split(">") if len(path) == 1 else path
        if (exact := tuple(name.strip() for name in written)) in self._taxonomy.leaf_set:
            return exact
        found = self._paths.get(_key(format_path(path)), [])
        return found[0] if len(found) == 1 else None

    def closest(self, path: CategoryPath) -> CategoryPath | None:
        """Return the leaf whose path is written most alike; None if none is alike, or many have been asked."""
        key = _key(format_path(path))
        if key not in self._suggestions:
            if len(self._suggestions) >= MAX_SUGGESTIONS:
                return None
            close = difflib.get_close_matches(key, self._paths, 1)
            if not close:  # the leaf's own name may have been given alone
                names = {_key(leaf[-1]): leaf for leaf in self._taxonomy.leaves}
                close = [_key(format_path(names[name])) for name in difflib.get_close_matches(key, names, 1)]
            self._suggestions[key] = self._paths[close[0]][0] if close else None
        return self._suggestions[key]


def _key(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return ">".join(" ".join(name.split()) for name in SEPARATORS.split(folded)).strip("> ")
