"""Raw rows to products: types, picture URIs, category paths."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import partial
from math import inf
from typing import Any, NamedTuple, Self, TypeVar

from atlas_ray.catalog.category_paths import (
    BETWEEN_PATHS,
    DEFAULT,
    SeparatorTally,
    several_paths,
    split_path,
    split_paths,
)
from atlas_ray.catalog.fields import FIELDS, FURTHER, Columns, find_value
from atlas_ray.catalog.picture_names import picture_names, picture_uri
from atlas_ray.errors import RowError, TaxonomyError
from atlas_ray.formats.prices import parse_currency, read_price
from atlas_ray.formats.values import (
    MAX_PRICE,
    MAX_SHOWN,
    clean_text,
    describe,
    flag,
    identifier,
    is_missing,
    number,
    split_name,
    text_value,
)
from atlas_ray.schemas import PRODUCTS
from atlas_ray.taxonomy import CategoryPath, Taxonomy, format_path
from atlas_ray.taxonomy.tree import check_path

T = TypeVar("T")
PATH_FIELDS = ("category_path", "breadcrumb")
"""Fields that are paths, as text or as lists."""
TEXTS = ("store", "url", "title", "description", "brand", "sku", "availability")
MAX_ID_CHARACTERS = 1024
CELL_ERRORS = ("#n/a", "#ref!", "#value!", "#div/0!", "#name?", "#num!", "#null!")
"""The values that spreadsheets write for a failed formula."""
NO_VALUE = frozenset((*CELL_ERRORS, "n/a", "n.a.", "nan", "null", "none", "nil", "\\n", "-", "--", "?"))
"""Texts that mean a missing id, category or picture, in lower case; a title may be one of them."""
NO_PICTURE = NO_VALUE | {"no_selection"}
"""Texts that mean a missing picture, with Magento's `no_selection`."""
NO_TEXT = frozenset((*CELL_ERRORS, "nan", "null", "\\n"))
"""Texts that mean that another kind of text is missing."""
ROUNDED = re.compile(r"\d[.,]\d+E\+\d+")
"""A pattern of a long number that a spreadsheet has rounded: `1.23E+15`."""
GUARDED = re.compile(r'="([^"]*)"')
"""A pattern of a text that is protected from becoming a number in a spreadsheet: `="123"`."""


@dataclass
class Unread:
    """Values of one field that could not be read."""

    count: int
    example: str
    """The first of them, with its place."""


@dataclass
class Missed:
    """Values of one field that could not be read so far."""

    count: int
    value: str
    """The first of them."""
    place: Any
    """Where it stands."""

    @property
    def example(self) -> str:
        """The first of them, with its place."""
        return f"{self.value} ({self.place})"

    @property
    def unread(self) -> Unread:
        """The same for a report."""
        return Unread(self.count, self.example)


class Category(NamedTuple):
    """What a category cell says."""

    paths: tuple[CategoryPath, ...] = ()
    left_out: tuple[str, ...] = ()
    """Texts in it that are no label."""
    unsure: str | None = None
    """The path as text, if it was read as one and may be several."""


@dataclass(kw_only=True)
class RowReader:
    """A reader of the raw rows of one source, with counts of what it read."""

    image_base: str
    """The folder that relative picture names are below."""
    image_base_given: bool = False
    """Whether the user named `image_base`; names that begin with a slash are then below it, too."""
    columns: Columns = field(default_factory=lambda: Columns({}))
    """The mapping from columns to fields."""
    taxonomy: Taxonomy | None = None
    """The taxonomy; labels that are none of its nodes are refused."""
    store: str | None = None
    """The store of rows without a store."""
    separators: Mapping[str, str] = field(default_factory=dict)
    """The separator of the names of a category path or breadcrumb, by field."""
    category_separator: str | None = None
    """The separator of several category paths in a cell; None if a cell names one."""
    doubts_paths: bool = False
    """Whether the user left open if a cell may name several paths."""
    image_separator: str | None = None
    """The separator of several pictures in a cell; None to tell pictures by their form."""
    point_marks_thousands: bool = False
    """Whether a price of `1.299` is more than a thousand."""
    keep: Sequence[str] = ()
    """Further columns that go into a product's attributes."""
    unread: dict[str, Missed] = field(default_factory=dict)
    """Optional fields that were left empty because their value could not be read."""
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counts of the values that were read, by (field, column)."""
    tally: SeparatorTally = field(default_factory=SeparatorTally)
    """Counts of the separators in category paths."""
    deepest: int = 0
    """The number of names in the longest category path."""
    unsure: Missed | None = None
    """Category paths that were read as one, and may be several."""

    def product(self, row: Mapping[str, Any], place: object) -> dict[str, Any]:
        """Turn a raw row into a row of the products table.

        Its `image_uris` are a dictionary, URI -> position among the product's pictures, which is infinite if the row
        states none; it is empty if the row names no picture.

        Args:
            row: Of a source.
            place: Where it stood, for the report.

        Raises:
            RowError: with the code missing_product_id, bad_image_uri, bad_value, bad_encoding, bad_category_path or
                unknown_category.
        """
        product: dict[str, Any] = dict.fromkeys((*PRODUCTS.names, "deleted"))
        columns = self.columns.of(row)
        values = {
            name: value
            for name in FIELDS
            if columns[name] and (value := self._value(row, columns[name], name)) is not None
        }
        product["product_id"] = self._product_id(values.get("product_id"), columns["product_id"])
        for name, read in OPTIONAL.items():
            if name in values:
                product[name] = self._optional(name, values[name], place, read)
        product["store"] = product["store"] or self.store
        if "price" in values:
            product["price"], stated = self._optional("price", values["price"], place, self._price) or (None, None)
            product["currency"] = product["currency"] or stated
        if "breadcrumb" in values:
            read = partial(self.read_word, "breadcrumb")
            product["breadcrumb"] = self._optional("breadcrumb", values["breadcrumb"], place, read)
        position = None
        if "image_position" in values:
            position = self._optional("image_position", values["image_position"], place, _position)
        pictures = [values.get("image_uris"), *(self._value(row, (name,), "image_uris") for name in columns[FURTHER])]
        product["image_uris"] = dict.fromkeys(self._image_uris(pictures, place), inf if position is None else position)
        if "deleted" in values:  # a row that is not understood must neither delete a product nor keep it
            product["deleted"] = flag(values["deleted"], "deleted")
        paths = self._category_paths(values.get("category_path"), place)
        if len(paths) > 1 and self.columns.is_of_levels("category_path", columns["category_path"]):
            raise several_paths(values["category_path"], [tuple(path) for path in paths])
        product["category_path"] = paths[0] if paths else None
        product["category_paths"] = paths if len(paths) > 1 else None
        product["attributes"] = self._attributes(row, place) or None
        return product

    def anew(self) -> Self:
        """Return a reader of the same settings that has read nothing."""
        return replace(self, unread={}, taken=Counter(), tally=SeparatorTally(), deepest=0, unsure=None)

    def located(self, lines: int) -> Self:
        """Return the reader with its places counted from so many lines further up."""
        moved = {name: replace(one, place=one.place.after(lines)) for name, one in self.unread.items()}
        unsure = self.unsure and replace(self.unsure, place=self.unsure.place.after(lines))
        return replace(self, unread=moved, unsure=unsure)

    def merge(self, other: "RowReader") -> None:
        """Add the counts of the reader of a later part of the source."""
        for name, unread in other.unread.items():
            self.unread.setdefault(name, replace(unread, count=0)).count += unread.count
        self.taken.update(other.taken)
        self.tally.merge(other.tally)
        self.deepest = max(self.deepest, other.deepest)
        if other.unsure:
            self.unsure = self.unsure or replace(other.unsure, count=0)
            self.unsure.count += other.unsure.count

    @property
    def columns_taken(self) -> dict[str, list[str]]:
        """The columns that each field was taken from."""
        columns: dict[str, list[str]] = {}
        for name, column in self.taken:
            columns.setdefault(name, []).append(column)
        return columns

    @property
    def likely_separator(self) -> str | None:
        """A separator that most category paths contain, if all were read as a single name."""
        return self.tally.most() if self.deepest == 1 else None

    def _value(self, row: Mapping[str, Any], columns: Sequence[str], name: str) -> Any:
        if name in PATH_FIELDS and self.columns.is_of_levels(name, columns):
            return self._levels(row, columns, name)
        cell = find_value(row, columns)
        if cell is None:
            return None
        self.taken[name, cell[0]] += 1
        return cell[1]

    def _levels(self, row: Mapping[str, Any], columns: Sequence[str], name: str) -> list[Any] | None:
        """Return a path that has a column for each of its names; it may end above the deepest level."""
        names: list[Any] = []
        for column in columns:
            found = find_value(row, (column,))
            there = found is not None and str(found[1]).strip().lower() not in NO_VALUE
            names.append(found[1] if found and there else None)
            self.taken[name, column] += there
        while names and names[-1] is None:
            names.pop()
        return names or None

    def _optional(self, name: str, value: Any, place: object, read: Callable[[Any], T]) -> T | None:
        """Read an optional field; a value that cannot be read counts as missing, and is counted."""
        try:
            return read(value)
        except RowError:
            self._miss(name, value, place)
            return None

    def read_word(self, name: str, value: Any) -> Any:
        """Read an optional field that is alike in many rows.

        Raises:
            RowError: if it cannot be read.
        """
        if name == "deleted":
            return flag(value, name)
        if name == "breadcrumb":
            return list(self._names(value, name)) or None
        return OPTIONAL[name](value)

    def _miss(self, name: str, value: Any, place: object) -> None:
        unread = self.unread.setdefault(name, Missed(0, describe(value), place))
        unread.count += 1

    def _attributes(self, row: Mapping[str, Any], place: object) -> list[tuple[str, str]]:
        """Return the further columns that were asked for, as text."""
        found = []
        for name in self.keep:
            if (column := self.columns.spelt(row, name)) is not None and not is_missing(row[column]):
                text = self._optional(name, row[column], place, partial(attribute_text, name=name))
                found += [(name, text)] if text else []
        return found

    def known_id(self, row: Mapping[str, Any]) -> str | None:
        """Return the product id of a row that is refused for something else, if it has one."""
        with contextlib.suppress(RowError):
            _, value = find_value(row, self.columns.of(row)["product_id"]) or ("", None)
            return (identifier(value, "product id") or "")[:MAX_ID_CHARACTERS] or None
        return None

    def _product_id(self, value: Any, columns: Sequence[str]) -> str:
        text = identifier(value, "product id")
        if text and (guarded := GUARDED.fullmatch(text)):
            text = guarded[1].strip()
        if text and ROUNDED.fullmatch(text):
            raise RowError(
                "bad_value",
                f"the product id is {text!r}, a number that a spreadsheet cut; give its column the format 'text' and "
                "export it again",
            )
        if not text or text.lower() in NO_VALUE:
            where = f" in {columns[0]!r}" if columns else "; no column of the row is one of ids"
            raise RowError("missing_product_id", f"the row has no product id{where}")
        if len(text) > MAX_ID_CHARACTERS:
            raise RowError(
                "bad_value",
                f"the product id has {len(text)} characters; at most {MAX_ID_CHARACTERS}",
            )
        return text

    def _image_uris(self, values: Sequence[Any], place: object) -> list[str]:
        """Return the pictures of a row; one that cannot be read is counted if there are others."""
        uris, errors = [], []
        for value in values:
            for name in picture_names(value, self.image_separator):
                if name.lower() in NO_PICTURE:
                    self._miss("image_uris", name, place)
                    continue
                try:
                    uris.append(picture_uri(name, self.image_base, rooted=self.image_base_given))
                except RowError as error:
                    errors.append((name, error))
        if errors and not uris:
            raise errors[0][1]
        for name, _ in errors:
            self._miss("image_uris", name, place)
        return uris

    def _names(self, value: Any, name: str) -> CategoryPath:
        return split_path(value, self.separators.get(name, DEFAULT), name.replace("_", " "))

    def _price(self, value: Any) -> tuple[float, str | None]:
        price = (
            read_price(value, by_machine=not self.point_marks_thousands)
            if isinstance(value, str)
            else (number(value, "price"), None)
        )
        if price is None or price[0] is None or not 0 <= price[0] < MAX_PRICE:
            raise RowError("bad_value", f"the price is {describe(value)}; expected a number that is not negative")
        return price[0], price[1]

    def _category_paths(self, value: Any, place: object) -> list[list[str]]:
        self.tally.add(value)
        found = self.read_category(value)
        self.note_category(found, 1, place)
        return [list(path) for path in found.paths]

    def note_category(self, found: Category, count: int, place: object) -> None:
        """Count what there is to say of category cells.

        Args:
            found: What `read_category` returned for them.
            count: How many they are.
            place: Where the first of them stands.
        """
        for text in found.left_out:
            self._miss("category_path", text, place)
            self.unread["category_path"].count += count - 1
        self.deepest = max([self.deepest, *map(len, found.paths)])
        if found.unsure is not None:
            self.unsure = self.unsure or Missed(0, found.unsure, place)
            self.unsure.count += count

    def read_category(self, value: Any) -> Category:
        """Return the category paths of a cell; of several those that are leaves of the taxonomy, if any is.

        Raises:
            RowError: bad_value, bad_encoding, bad_category_path or unknown_category.
        """
        if isinstance(value, str) and value.strip().lower() in NO_VALUE:
            return Category(left_out=(value,))
        paths, left_out = self._paths(value)
        for path in paths:
            try:
                check_path(path)
            except TaxonomyError as error:
                raise RowError("bad_category_path", str(error)) from None
        unsure = None
        signs = [sign for sign in BETWEEN_PATHS if sign != self.category_separator]
        if self.doubts_paths and isinstance(value, str) and len(paths) == 1:
            (path,) = paths
            unsure = (
                repr(format_path(path)[:MAX_SHOWN]) if any(sign in name for name in path for sign in signs) else None
            )
        return Category(paths, left_out, unsure)

    def _paths(self, value: Any) -> tuple[tuple[CategoryPath, ...], tuple[str, ...]]:
        """Return the paths that a cell, or an id of the taxonomy, stands for, and those that are left out.

        Those above the leaves say less than leaves beside them, and are left out then.
        """
        if self.taxonomy and isinstance(value, str | int) and str(value).strip() in self.taxonomy.ids:
            value = list(self.taxonomy.ids[str(value).strip()])
        read = partial(split_paths, value, self.separators.get("category_path", DEFAULT), "category path")
        paths = read(self.category_separator)
        if self.taxonomy is None:
            return paths, ()
        leaves, nodes = self.taxonomy.leaf_positions, self.taxonomy.label_positions
        if len(paths) > 1 and len(whole := read()) == 1 and whole[0] in nodes:
            return whole, ()
        known = tuple(path for path in paths if path in leaves) or tuple(path for path in paths if path in nodes)
        if paths and not known:
            raise RowError(
                "unknown_category",
                f"{format_path(paths[0])!r} is not in the taxonomy {self.taxonomy.name!r}",
            )
        return known, tuple(format_path(path) for path in paths if path not in known)


def attribute_text(value: Any, name: str) -> str | None:
    """Return any value as the text of an attribute: lists and objects as JSON."""
    if isinstance(value, list | dict | bool):
        try:
            return clean_text(json.dumps(value, ensure_ascii=False, default=str)) or None
        except (RecursionError, ValueError):
            raise RowError("bad_value", f"the {name} is {describe(value)}; expected text or numbers") from None
    if isinstance(value, datetime | date):
        return value.isoformat()
    return text_value(value, name)


def _text(value: Any, name: str) -> str | None:
    text = text_value(value, name)
    if text and text.lower() in NO_TEXT:
        raise RowError("bad_value", f"the {name} is {describe(value)}, which stands for a missing one")
    return text


def _currency(value: Any) -> str | None:
    text = text_value(value, "currency")
    return (parse_currency(text) or text) if text else None


def _position(value: Any) -> float | None:
    return number(value, "image position")


def _split(value: Any) -> str:
    split = split_name(value) if isinstance(value, str) else None
    if split is None:
        raise RowError("bad_value", f"the split is {describe(value)}; expected train, val or test")
    return split


def _time(value: Any) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise RowError("bad_value", f"the time is {describe(value)}; expected ISO 8601") from None


OPTIONAL: dict[str, Callable[[Any], Any]] = {
    **{
        name: partial(_text, name=name)
        for name in ("store", "url", "title", "description", "brand", "sku", "availability")
    },
    "currency": _currency,
    "crawled_at": _time,
    "split": _split,
}
"""Readers of the optional fields, by field."""
