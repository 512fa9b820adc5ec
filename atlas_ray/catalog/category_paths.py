"""Readers of category paths as sources write them: as lists, or as text with one of many separators."""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from atlas_ray.catalog.picture_names import read_listed
from atlas_ray.errors import RowError
from atlas_ray.formats.values import clean_name, describe, is_missing, name_value, plain_text
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
"""Patterns of separators that hardly occur in names, by the separator."""
IN_NAMES = {"/": "/", ";": ";", "\\": r"\\", ":": "(?<!:):(?!:)", " - ": r"\s[-–—]\s"}
"""Patterns of separators that also occur in names (`Tops/Tees`), assumed only if most paths have them."""
PATTERNS = {name: re.compile(pattern) for name, pattern in (SEPARATORS | IN_NAMES).items()}
BETWEEN_PATHS = (",", ";", "|")
"""Separators of several paths in one cell, which may also be part of a name."""
SURE_SHARE = 0.2
"""The least share of the cells with such a separator that must certainly name several paths."""
SHOWN = 200
KNOWN_TEXTS, KNOWN_CHARACTERS = 10_000, 500
"""The number and the largest length of texts whose paths are cached, since products share them."""
MIN_LIKELY_SHARE, MAX_SURE_SHARE = 0.5, 0.1
"""A separator of `IN_NAMES` is chosen if at least the first share of the paths have it, and at most the second share
have one of `SEPARATORS`."""


class SeparatorTally:
    """A count of the separators in the paths of a source."""

    def __init__(self) -> None:
        self._paths = 0
        self._counts: Counter[str] = Counter()

    def add(self, value: Any, count: int = 1) -> None:
        """Count a path, which occurs so often; lists need no separator."""
        if isinstance(value, str) and not is_missing(value):
            self._paths += count
            self._counts.update(dict.fromkeys(_separators_in(value[:KNOWN_CHARACTERS]), count))

    def merge(self, other: "SeparatorTally") -> None:
        """Add the paths of another part of the source."""
        self._paths += other._paths
        self._counts += other._counts

    def best(self) -> str:
        """Return the separator that the paths are written with."""
        sure, likely = (max(names, key=lambda name: self._counts[name]) for names in (SEPARATORS, IN_NAMES))
        if self._counts[likely] > MIN_LIKELY_SHARE * self._paths and self._counts[sure] < MAX_SURE_SHARE * self._paths:
            return likely
        return sure if self._counts[sure] else DEFAULT

    def most(self) -> str | None:
        """Return the separator that most paths have, if one has."""
        best = self.best()
        return best if self._counts[best] > MIN_LIKELY_SHARE * self._paths else None


class ListTally:
    """A check of a source's first cells for cells that name several paths: `Clothing > Belts, Sale`.

    A comma may as well be part of a name (`Food, Beverages & Tobacco`). It stands between paths if what follows it
    begins other cells, too, or follows different names, in more than a few cells.
    """

    def __init__(self, separator: str) -> None:
        """Take what stands between the names of a path."""
        self._pattern = _pattern(separator)
        self._signs = [sign for sign in BETWEEN_PATHS if sign != separator]
        self._cells: list[str] = []

    def add(self, value: Any) -> None:
        """Take a cell; lists need no separator."""
        if isinstance(value, str) and isinstance(text := read_listed(value), str):
            self._cells.append(plain_text(text[:KNOWN_CHARACTERS]))

    def best(self) -> str | None:
        """Return what stands between several paths; None if no cell is known to name several."""
        counts = {sign: self._count(sign) for sign in self._signs}
        best = max(counts, key=lambda sign: counts[sign], default=None)
        return best if best and counts[best] else None

    def _count(self, sign: str) -> int:
        """Return how many cells name several paths with a sign between them; 0 if few of those with it do."""
        cells = [[self._names(part) for part in split_cell(cell, sign) if part.strip()] for cell in self._cells]
        beginnings = {names[0] for (names, *_) in filter(None, cells)}
        before: dict[str, set[str]] = {}
        for paths in cells:
            for one, other in itertools.pairwise(paths):
                before.setdefault(other[0], set()).add(one[-1])
        several = [paths for paths in cells if len(paths) > 1]
        sure = sum(any(path[0] in beginnings or len(before[path[0]]) > 1 for path in paths[1:]) for paths in several)
        sure += sum(f"\\{sign}" in cell for cell in self._cells)
        return sure if sure >= SURE_SHARE * len(several) else 0

    def _names(self, part: str) -> list[str]:
        return [clean_name(name) for name in self._pattern.split(part) if name.strip()] or [""]


@functools.lru_cache(KNOWN_TEXTS)
def _separators_in(text: str) -> tuple[str, ...]:
    text = plain_text(text)
    return tuple(name for name, pattern in PATTERNS.items() if pattern.search(text))


def split_paths(value: Any, separator: str, field: str, between: str | None = None) -> tuple[CategoryPath, ...]:
    """Return the paths that a value names, without those that lead to others; () for a missing one.

    Args:
        value: A list of names, a list of paths written as text, or text.
        separator: Between the names of a text; white space around it does not matter. Empty names at its ends are left
            out.
        between: Between several paths in one text; None if a text names one, unless all begin with the same name.
        field: For messages.

    Raises:
        RowError: `bad_value` for an invalid name, `bad_encoding`, and `bad_category_path` for other types.
    """
    if isinstance(value, str):
        split = _split_text if len(value) <= KNOWN_CHARACTERS else _split_text.__wrapped__
        return split(value, separator, field, between)
    return () if is_missing(value) else _split(value, separator, field, between)


def split_path(value: Any, separator: str, field: str) -> CategoryPath:
    """Return the one path that a value names; () for a missing one.

    Raises:
        RowError: as `split_paths`, and `bad_category_path` if there are several.
    """
    paths = split_paths(value, separator, field)
    if len(paths) > 1:
        raise several_paths(value, paths)
    return paths[0] if paths else ()


def several_paths(value: Any, paths: Sequence[CategoryPath]) -> RowError:
    """Return the error of a value that names several paths."""
    return RowError("bad_category_path", f"{str(value)[:SHOWN]!r} are {len(paths)} category paths; leave one")


@functools.lru_cache(KNOWN_TEXTS)
def _split_text(text: str, separator: str, field: str, between: str | None) -> tuple[CategoryPath, ...]:
    return () if is_missing(text) else _split(read_listed(text), separator, field, between)


def _split(value: Any, separator: str, field: str, between: str | None) -> tuple[CategoryPath, ...]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        return _of_text(plain_text(value), separator, field, between)
    if not isinstance(value, list | tuple):
        raise RowError("bad_category_path", f"the {field} is {describe(value)}; expected text or a list of names")
    if value and all(isinstance(names, list | tuple) for names in value):  # as in `[["A", "B"], ["A", "C"]]`
        return _longest(
            [_tidy([plain_text(name) if isinstance(name, str) else name for name in names], field) for names in value]
        )
    names = [plain_text(name) if isinstance(name, str) else name for name in value]
    if all(isinstance(name, str) for name in names) and any(_pattern(DEFAULT).search(name) for name in names):
        return _longest([_tidy(_pattern(DEFAULT).split(name), field) for name in names])
    return _longest([_tidy(names, field)])


def _of_text(text: str, separator: str, field: str, between: str | None) -> tuple[CategoryPath, ...]:
    pattern = _pattern(separator)
    if between:
        return _longest([_tidy(pattern.split(part), field) for part in split_cell(text, between)])
    for sign in BETWEEN_PATHS:
        if sign in text and sign != separator:
            paths = [path for part in text.split(sign) if (path := _tidy(pattern.split(part), field))]
            if len(paths) > 1 and all(path[0] == paths[0][0] for path in paths):  # else the sign is part of a name
                return _longest(paths)
    return _longest([_tidy(pattern.split(text), field)])


def _pattern(separator: str) -> re.Pattern[str]:
    return PATTERNS.get(separator) or re.compile(re.escape(separator))


def split_cell(text: str, between: str) -> list[str]:
    """Return the paths in a text; a separator with a backslash before it is part of a name."""
    parts = re.split(rf"(?<!\\){re.escape(between)}", text)
    return [part.replace(f"\\{between}", between) for part in parts]


def _longest(paths: list[CategoryPath]) -> tuple[CategoryPath, ...]:
    """Return distinct paths, without empty ones and those that are ancestors of another."""
    found = dict.fromkeys(path for path in paths if path)
    leading = {path[:level] for path in found for level in range(1, len(path))}
    return tuple(path for path in found if path not in leading)


def _tidy(names: list[Any], field: str) -> CategoryPath:
    """Return names without the empty ones at the ends."""
    while names and isinstance(names[0], str) and is_missing(names[0]):
        names = names[1:]
    while names and isinstance(names[-1], str) and is_missing(names[-1]):
        names = names[:-1]
    return tuple("" if isinstance(name, str) and is_missing(name) else name_value(name, field) for name in names)
