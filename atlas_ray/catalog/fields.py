"""The mapping from a source's columns to the fields of a product."""

import difflib
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from atlas_ray.errors import ConfigError
from atlas_ray.formats.delimited import column_key
from atlas_ray.formats.values import is_missing
from atlas_ray.schemas import PRODUCTS

DERIVED = ("category_paths", "attributes")
"""Columns of the products table that are made of others."""
FIELDS = (*(name for name in PRODUCTS.names if name not in DERIVED), "image_position", "deleted")
"""Fields that `--map` may name: columns of the products table, the order of a product's pictures, and whether the
product is no longer there."""
SYNONYMS = {
    "product_id": ("product_id", "id", "item_id", "handle", "url_handle", "sku", "product_sku", "item_sku",
                   "variant_sku", "article_number"),
    "store": ("store", "shop", "store_name", "shop_name"),
    "url": ("url", "link", "product_url", "product_link", "permalink", "page_url"),
    "title": ("title", "name", "product_title", "product_name", "item_name", "display_name", "product_display_name"),
    "description": ("description", "product_description", "long_description", "body_html", "body",
                    "short_description"),
    "price": ("price", "product_price", "standard_price", "sale_price", "variant_price", "regular_price",
              "current_price"),
    "currency": ("currency", "currency_code", "price_currency"),
    "brand": ("brand", "brand_name", "brands", "vendor", "manufacturer"),
    "sku": ("sku", "product_sku", "item_sku", "variant_sku", "article_number"),
    "availability": ("availability", "stock_status", "availability_status"),
    "breadcrumb": ("breadcrumb", "breadcrumbs"),
    "image_uris": ("image_uris", "image_uri", "images", "image", "image_src", "image_urls", "image_url", "image_links",
                   "image_link", "image_paths", "image_path", "image_file", "image_filename", "filename", "file_name",
                   "pictures", "picture", "picture_urls", "picture_url", "photos", "photo", "photo_urls", "photo_url",
                   "img", "imgs", "img_src", "img_url", "base_image", "main_image", "main_image_url", "primary_image",
                   "product_image", "product_image_url", "variant_image", "variant_image_url"),
    "category_path": ("category_paths", "category_path", "category", "product_category", "categories", "category_name",
                      "product_type", "type", "custom_product_type", "google_product_category"),
    "split": ("split",),
    "crawled_at": ("crawled_at",),
    "deleted": ("deleted", "is_deleted"),
    "image_position": ("image_position", "picture_position", "image_number", "image_order"),
}  # fmt: skip
"""Column names that exports use, by field, the preferred first; case, spaces and punctuation do not matter."""
FURTHER_PICTURES = ("additional_images", "additional_image", "additional_image_links", "additional_image_link",
                    "additional_image_urls", "additional_image_url", "other_images", "more_images", "gallery_images",
                    "gallery")  # fmt: skip
"""Names of columns of further pictures, besides those of `SYNONYMS`."""
OWN_PATHS = ("category_paths", "category_path")
"""Columns of our own tables: all paths of a product that has several, and the first one of each."""
KINDS_OF_PRODUCT = frozenset(("simple", "variable", "variation", "grouped", "external", "virtual", "downloadable"))
"""What WooCommerce writes into its column `Type`, in which other shops have a category."""
FROM_ONE_COLUMN = ("product_id", "category_path")
"""Fields that are read from the same column in all rows, so that two kinds of ids or categories do not mix."""
SEVERAL = ("image_uris", "category_path", "breadcrumb")
"""Fields that may be read from several columns: pictures, and the names of a path from the top down."""
FURTHER = "further image_uris"
"""The key of columns of pictures that are read besides those of `image_uris`."""
MAX_SHOWN = 40
MAX_HEADERS = 1000
"""The number of cached headers, since each object of a JSON Lines file may have a different one."""
KEYS = {field: tuple(map(column_key, names)) for field, names in SYNONYMS.items()}
FURTHER_KEYS = tuple(map(column_key, FURTHER_PICTURES))
NUMBERED = re.compile(
    rf"(?P<stem>{'|'.join(KEYS['image_uris'])}|(?:additional|other)image(?:url|link)?)(?P<number>\d{{1,3}})"
    r"|(?P<before>image|picture|photo|img)(?P<within>\d{1,3})(?P<after>src|url|link|uri|path|file|filename)"
)
"""A pattern of numbered picture columns: `image_1`, `Image URL 2`, `photo3_path`."""


class Columns:
    """The columns of each field in the rows of a source."""

    def __init__(
        self, chosen: Mapping[str, str], table: Sequence[Mapping[str, Any]] = (), category: str | None = None
    ) -> None:
        """Take the user's choice.

        Args:
            chosen: Our field -> the source's column; for those of `SEVERAL` also several, with commas between them.
            table: The first rows of a source whose rows all have the same columns; empty for others.
            category: Of such others that one shop writes, `category_of` their first rows.
        """
        self._category = category
        self._chosen = chosen
        self._table = table
        self._known: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}

    @property
    def names(self) -> list[str]:
        """What the source's columns may be called."""
        chosen = [name for column in self._chosen.values() for name in (column, *_several(column))]
        return [*chosen, *PRODUCTS.names, *(name for names in SYNONYMS.values() for name in names)]

    def of(self, row: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
        """Return the columns of each field, of which the first that has a value counts; of `FURTHER` all do."""
        header = tuple(row)
        columns = self._known.get(header)
        if columns is None:
            if len(self._known) >= MAX_HEADERS:
                self._known.clear()
            columns = self._known[header] = self._find(header)
        return columns

    def spelt(self, row: Mapping[str, Any], name: str) -> str | None:
        """Return the column of a row that is called so, as written or spelt alike; None if it has none."""
        if name in row:
            return name
        key = column_key(name)
        return next((column for column in row if column_key(column) == key), None)

    def settled(self, header: Sequence[str]) -> "Columns":
        """Return the columns as they were told for a header, without the rows that they were told from."""
        settled = Columns(self._chosen)
        settled._known[tuple(header)] = dict(self.of(dict.fromkeys(header)))
        return settled

    def is_of_levels(self, field: str, columns: Sequence[str]) -> bool:
        """Tell whether a path has a column for each of its names."""
        return field in self._chosen and len(columns) > 1

    def check(self, source: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Refuse a chosen column that no row has.

        Args:
            source: For the message.
            rows: Read only as far as is needed.

        Raises:
            ConfigError: naming the column that is most like it.
        """
        missing = dict(self._chosen)
        names: dict[str, None] = {}
        keys: set[str] = set()
        for row in rows:
            if not missing:
                return
            keys.update(map(column_key, row))
            missing = {field: column for field, column in missing.items() if _absent(field, column, keys)}
            if len(names) < MAX_SHOWN:
                names.update(dict.fromkeys(row))
        for field, column in missing.items():
            like = {column_key(name): name for name in names}
            absent = _absent(field, column, keys)[0]
            close = difflib.get_close_matches(column_key(absent), like, 1)
            hint = f"did you mean {like[close[0]]!r}? It" if close else "it"
            shown = ", ".join(repr(name) for name in list(names)[:MAX_SHOWN]) or "none"
            raise ConfigError(f"--map {field}={column}: no column {absent!r} in {source}; {hint} has {shown}")

    def check_needed(self, source: str) -> None:
        """Refuse a table without a column of ids, or without one of pictures or texts.

        Raises:
            ConfigError: with the columns that it has.
        """
        columns_of = self.of(self._table[0])
        for field, columns in (
            ("product_id", columns_of["product_id"]),
            (
                "image_uris",
                columns_of["image_uris"] + columns_of[FURTHER] + columns_of["title"] + columns_of["description"],
            ),
        ):
            if not columns:
                shown = ", ".join(map(repr, list(self._table[0])[:MAX_SHOWN]))
                raise ConfigError(
                    f"{source}: no column is known as {field}; name one with --map {field}=COLUMN: {shown}"
                )

    def check_kept(self, source: str, names: Sequence[str]) -> None:
        """Refuse a further column that a table does not have.

        Raises:
            ConfigError: with the columns that it has.
        """
        for name in names:
            if self.spelt(self._table[0], name) is None:
                shown = ", ".join(map(repr, list(self._table[0])[:MAX_SHOWN]))
                raise ConfigError(f"--keep {name}: no column {name!r} in {source}; it has {shown}")

    @property
    def without_pictures(self) -> bool:
        """Whether no column of a table is one of pictures."""
        return bool(self._table) and not any(self.of(self._table[0])[name] for name in ("image_uris", FURTHER))

    def _find(self, header: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        by_key = {column_key(name): name for name in reversed(header)}  # of equal ones the first
        columns_of = {FURTHER: _numbered(by_key) + tuple(by_key[key] for key in FURTHER_KEYS if key in by_key)}
        for field in FIELDS:
            if field in self._chosen:
                columns_of[field] = _resolve(field, self._chosen[field], header, by_key)
                continue
            columns = tuple(by_key[key] for key in KEYS[field] if key in by_key)
            if field in FROM_ONE_COLUMN and self._table:
                filled = [name for name in columns if any(_is_said(row.get(name)) for row in self._table)]
                columns = _with_own(tuple(filled[:1]) or columns[:1], columns)
            elif field == "category_path" and self._category is not None:
                columns = _with_own(tuple(name for name in columns if column_key(name) == self._category), columns)
            columns_of[field] = columns
        if "image_uris" in self._chosen:
            columns_of[FURTHER], columns_of["image_uris"] = columns_of["image_uris"], ()
        return columns_of


def find_value(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, Any] | None:
    """Return the first of some columns that a row has a value in, and the value; None if it has none."""
    for column in columns:
        value = row.get(column)
        if value is not None and value != "" and not is_missing(value) and value not in ([], {}):
            return column, value
    return None


def category_of(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the key of the column that the categories of rows are read from; None if none of them has one.

    A row without it has no category: another of its columns may hold one of another kind.
    """
    said = {column_key(name) for row in rows for name, value in row.items() if _is_said(value)}
    return next((key for key in KEYS["category_path"] if key in said), None)


def _is_said(value: Any) -> bool:
    """Tell whether an id, or a category, is in a cell."""
    if not isinstance(value, str):
        return bool(value)
    return not KINDS_OF_PRODUCT.issuperset(filter(None, (word.strip().lower() for word in value.split(","))))


def _with_own(chosen: tuple[str, ...], columns: tuple[str, ...]) -> tuple[str, ...]:
    """Add to one of the columns of our own tables the other one."""
    own = tuple(name for name in columns if column_key(name) in map(column_key, OWN_PATHS))
    return own if set(chosen) & set(own) else chosen


def _several(column: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in column.split(",") if name.strip())


def _absent(field: str, column: str, keys: Container[str]) -> list[str]:
    """Return which of the columns that the user means no row has so far."""
    if column_key(column) in keys:
        return []
    return [name for name in (_several(column) if field in SEVERAL else (column,)) if column_key(name) not in keys]


def _resolve(field: str, column: str, header: tuple[str, ...], by_key: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns of a row that the user means, as written or spelt alike; () if it has none of them.

    Objects may leave out one of several columns, which keeps its place.
    """
    for names in ((column,), _several(column) if field in SEVERAL else ()):
        found = tuple(name if name in header else by_key.get(column_key(name), name) for name in names)
        if any(name in header for name in found):
            return found
    return ()


def _numbered(by_key: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns `image_1`, `image_2`, ... by their numbers, of one kind: not paths beside addresses."""
    kinds: dict[str, list[tuple[int, str]]] = {}
    for key, column in reversed(list(by_key.items())):  # in the header's order
        if match := NUMBERED.fullmatch(key):
            kinds.setdefault(match["stem"] or match["before"] + match["after"], []).append(
                (int(match["number"] or match["within"]), column)
            )
    return tuple(column for _, column in sorted(next(iter(kinds.values()), [])))
