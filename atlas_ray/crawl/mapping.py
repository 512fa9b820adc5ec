"""Breadcrumbs of shops to category paths of the taxonomy."""

import re
from collections.abc import Iterable, Sequence

from atlas_ray.errors import ConfigError, TaxonomyError
from atlas_ray.formats.delimited import Delimited, column_key
from atlas_ray.formats.text_files import open_text
from atlas_ray.formats.values import clean_name
from atlas_ray.taxonomy import CategoryPath, Taxonomy, parse_path

COLUMNS = ("store", "breadcrumb_prefix", "category_path")
ANY_STORE = ("", "*")
Key = tuple[str, ...]


class BreadcrumbMapping:
    """What a shop's breadcrumb means in the taxonomy.

    A table says so for the breadcrumbs that begin with certain names; the longest such beginning
    wins, and one for the shop before one for any. Names are compared without regard to case and
    white space. Where no row fits, a breadcrumb that is, ends in, or begins with a leaf's path means
    that leaf, if no other leaf fits as well.
    """

    def __init__(
        self, taxonomy: Taxonomy, rows: Iterable[tuple[int, str, str, str]] = (), *, source: str = "mapping"
    ) -> None:
        """Check and index the table.

        Args:
            taxonomy: Where the category paths must lead. A path deeper than it means the leaf above.
            rows: (line, store, breadcrumb prefix as `A > B`, category path as `A > B`); a store "" or
                "*" is any.
            source: Where the rows come from, for messages.

        Raises:
            ConfigError: naming the source and the line of a row that cannot be used.
        """
        self.taxonomy = taxonomy
        self._table: dict[tuple[str, Key], CategoryPath] = {}
        self._leaves: dict[Key, set[CategoryPath]] = {}
        for leaf in taxonomy.leaves:
            self._leaves.setdefault(_key(leaf), set()).add(leaf)
        lines: dict[tuple[str, Key], int] = {}
        for line, store, prefix, path in rows:
            try:
                names = _key(parse_path(prefix))
                target = self.collapse(parse_path(path))
            except TaxonomyError as error:
                raise ConfigError(f"{source}, line {line}: {error}") from None
            if target is None:
                where = f"a leaf of the taxonomy {taxonomy.name!r}"
                raise ConfigError(f"{source}, line {line}: {path!r} is not, and is not below, {where}")
            entry = ("" if store.strip() in ANY_STORE else _fold(store), names)
            if entry in lines and self._table[entry] != target:
                raise ConfigError(f"{source}, line {line}: {prefix!r} means something else in line {lines[entry]}")
            lines.setdefault(entry, line)
            self._table[entry] = target

    @classmethod
    def read(cls, uri: str, taxonomy: Taxonomy) -> "BreadcrumbMapping":
        """Read a CSV with the columns store, breadcrumb_prefix and category_path.

        Raises:
            ConfigError: naming the file and the line.
            StorageError: if the file cannot be read.
        """
        stream = open_text(uri, ConfigError)
        table = Delimited(stream, COLUMNS, source=uri, error=ConfigError)
        columns = list(map(column_key, table.header))
        if sorted(columns) != sorted(map(column_key, COLUMNS)):
            raise ConfigError(f"{uri}: the columns are {table.header[:8]}; expected {', '.join(COLUMNS)}")
        store, prefix, path = (columns.index(column_key(name)) for name in COLUMNS)
        rows = []
        for line, _, cells, error in table:
            if error:
                raise ConfigError(f"{uri}, line {line}: {error.message}")
            if cells:
                rows.append((line, cells[store], cells[prefix], cells[path]))
        stream.warn_if_assumed(uri)
        return cls(taxonomy, rows, source=uri)

    def map(self, store: str, breadcrumb: Sequence[str]) -> CategoryPath | None:
        """Return the leaf that a shop's breadcrumb means, or None if that is not known."""
        names = _key(breadcrumb)
        for length in range(len(names), 0, -1):
            for shop in (_fold(store), ""):
                if (path := self._table.get((shop, names[:length]))) is not None:
                    return path
        parts = [part for cut in range(1, len(names)) for part in (names[cut:], names[:cut])]
        found = self._leaves.get(names) or {leaf for part in parts for leaf in self._leaves.get(part, ())}
        return next(iter(found)) if len(found) == 1 else None

    def collapse(self, path: CategoryPath) -> CategoryPath | None:
        """Return the leaf that a path is, or lies below; None if there is none."""
        for length in range(len(path), 0, -1):
            leaves = self._leaves.get(_key(path[:length]), set())
            if path[:length] in leaves or len(leaves) == 1:
                return path[:length] if path[:length] in leaves else next(iter(leaves))
        return None


def _fold(name: str) -> str:
    return re.sub(r"\s+", "", clean_name(name)).casefold()


def _key(names: Iterable[str]) -> Key:
    return tuple(filter(None, map(_fold, names)))
