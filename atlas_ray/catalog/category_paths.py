"""Category paths as a source writes them: as lists, or as text with one of many separators."""

import functools
import html
import re
from collections import Counter
from typing import Any

from atlas_ray.catalog.picture_names import read_listed
from atlas_ray.errors import RowError
from atlas_ray.formats.values import describe, is_missing, name_value
from atlas_ray.taxonomy import CategoryPath

DEFAULT = ">"
SEPARATORS = {
    "->": r"[-=]+>",
    ">": r"(?<![-=])[>＞]",
    "»": "»",
    "›": "›",
    "→": "[→⟶➔]",
    "|": r"\|",
    "::": "::",
}
"""Separators that hardly stand in a name, with what a path written with them holds."""
IN_NAMES = {"/": "/", ";": ";", "\\": r"\\", ":": "(?<!:):(?!:)", " - ": r"\s[-–—]\s"}
"""Separators that names have, too (`Tops/Tees`): assumed only where most paths have them and hardly any another."""
PATTERNS = {name: re.compile(pattern) for name, pattern in (SEPARATORS | IN_NAMES).items()}
BETWEEN_PATHS = (",", ";", "|")
"""What stands between several paths in one cell, if all begin with the same name; otherwise it is part of a name."""
SHOWN = 200
KNOWN_TEXTS, KNOWN_CHARACTERS = 10_000, 500
"""Texts of paths whose names are remembered, and their length at most: products share them."""
MOST, FEW = 0.5, 0.1
"""Shares of the paths: of one assumed separator at least, and of the surer ones at most."""


def plain_text(text: str) -> str:
    """Return a text without entities, also where they are escaped twice: `A &amp;gt; B` is `A > B`."""
    return html.unescape(html.unescape(text)) if "&" in text else text


class SeparatorTally:
    """Counts which separators the paths of a source have."""

    def __init__(self) -> None:
        self._paths = 0
        self._counts: Counter[str] = Counter()

    def add(self, value: Any) -> None:
        """Count a path; lists need no separator."""
        if isinstance(value, str) and not is_missing(value):
            self._paths += 1
            self._counts.update(_separators_in(value[:KNOWN_CHARACTERS]))

    def best(self) -> str:
        """Return the separator that the paths are written with."""
        sure, likely = (max(names, key=lambda name: self._counts[name]) for names in (SEPARATORS, IN_NAMES))
        if self._counts[likely] > MOST * self._paths and self._counts[sure] < FEW * self._paths:
            return likely
        return sure if self._counts[sure] else DEFAULT

    def most(self) -> str | None:
        """Return the separator that most paths have, if one has."""
        best = self.best()
        return best if self._counts[best] > MOST * self._paths else None


@functools.lru_cache(KNOWN_TEXTS)
def _separators_in(text: str) -> tuple[str, ...]:
    text = plain_text(text)
    return tuple(name for name, pattern in PATTERNS.items() if pattern.search(text))


def split_path(value: Any, separator: str, field: str) -> CategoryPath:
    """Return the names of a path; () for a missing one. Empty names at its ends are left out.

    Args:
        value: A list of names, or text.
        separator: Between the names of a text; white space around it does not matter.
        field: For messages.

    Raises:
        RowError: `bad_value` for a name that is none, `bad_encoding`, and `bad_category_path` for other types.
    """
    if isinstance(value, str):
        split = _split_text if len(value) <= KNOWN_CHARACTERS else _split_text.__wrapped__
        return split(value, separator, field)
    return () if is_missing(value) else _split(value, separator, field)


@functools.lru_cache(KNOWN_TEXTS)
def _split_text(text: str, separator: str, field: str) -> CategoryPath:
    return () if is_missing(text) else _split(read_listed(text), separator, field)


def _split(value: Any, separator: str, field: str) -> CategoryPath:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        return _of_text(plain_text(value), separator, field)
    if isinstance(value, list | tuple):
        return _tidy([plain_text(name) if isinstance(name, str) else name for name in value], field)
    raise RowError("bad_category_path", f"the {field} is {describe(value)}; expected text or a list of names")


def _of_text(text: str, separator: str, field: str) -> CategoryPath:
    """Return the names of a path written as text; of several that lead to one another the longest."""
    pattern = PATTERNS.get(separator) or re.compile(re.escape(separator))
    for sign in BETWEEN_PATHS:
        if sign in text and sign != separator:
            paths = [path for part in text.split(sign) if (path := _tidy(pattern.split(part), field))]
            longest = max(paths, key=len, default=())
            if len(paths) < 2 or any(path[0] != longest[0] for path in paths):
                continue  # the sign is part of a name
            if any(path != longest[: len(path)] for path in paths):
                raise RowError("bad_category_path", f"{text[:SHOWN]!r} are {len(paths)} category paths; leave one")
            return longest
    return _tidy(pattern.split(text), field)


def _tidy(names: list[Any], field: str) -> CategoryPath:
    """Return names without the empty ones at the ends."""
    while names and isinstance(names[0], str) and is_missing(names[0]):
        names = names[1:]
    while names and isinstance(names[-1], str) and is_missing(names[-1]):
        names = names[:-1]
    return tuple("" if isinstance(name, str) and is_missing(name) else name_value(name, field) for name in names)
