"""Raw rows to products: types, picture URIs, category paths."""

import math
import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from atlas_ray import storage
from atlas_ray.catalog.split import SPLITS
from atlas_ray.errors import RowError, TaxonomyError
from atlas_ray.records import PRODUCTS
from atlas_ray.taxonomy import CategoryPath, Taxonomy, format_path
from atlas_ray.taxonomy.tree import check_path

TEXT_FIELDS = ("store", "url", "title", "description", "currency")
MAX_ID_CHARACTERS = 1024
THOUSANDS_SPACE = re.compile(r"(?<=\d)\s(?=\d{3}(?!\d))")
DECIMAL_COMMA = re.compile(r"[^,]*,\d{1,2}")
"""As in `1.299,50`; before three digits a comma marks the thousands."""
# Names that catalogues use for our fields; an explicit column map goes first.
SYNONYMS = {
    "product_id": ("product_id", "id", "sku"),
    "image_uris": ("image_uris", "image_uri", "images", "image", "filename"),
    "category_path": ("category_path", "category"),
    "title": ("title", "name"),
}


@dataclass(frozen=True, kw_only=True)
class RowReader:
    """How raw rows of one source are read."""

    image_base: str
    """The folder that relative picture names are below."""
    columns: Mapping[str, str]
    """Our field -> the source's column."""
    taxonomy: Taxonomy | None = None
    """Labels outside it are refused."""
    store: str | None = None
    """The store of rows that name none."""
    path_separator: str = ">"
    """Between the names of a category path written as text."""
    list_separator: str = "|"
    """Between picture URIs in one cell."""

    @property
    def known(self) -> list[str]:
        """What the source's columns may be called."""
        return [column for name in PRODUCTS.names for column in self._columns(name)]

    def product(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a raw row into a row of the products table.

        Raises:
            RowError: with the code missing_product_id, missing_images, bad_image_uri, bad_value,
                bad_category_path or unknown_category.
        """
        product: dict[str, Any] = dict.fromkeys(PRODUCTS.names)
        product["product_id"] = self._product_id(self._get(fields, "product_id"))
        for name in TEXT_FIELDS:
            product[name] = _text(self._get(fields, name))
        product["store"] = product["store"] or self.store
        product["price"] = _price(self._get(fields, "price"))
        product["crawled_at"] = _time(self._get(fields, "crawled_at"))
        breadcrumb = self._names(self._get(fields, "breadcrumb"))
        product["breadcrumb"] = list(breadcrumb) if breadcrumb else None
        product["image_uris"] = self._image_uris(self._get(fields, "image_uris"))
        path = self._category_path(self._get(fields, "category_path"))
        product["category_path"] = list(path) if path else None
        split = _text(self._get(fields, "split"))
        split = {"validation": "val", "valid": "val", "restval": "train"}.get(split or "", split)
        if split and split not in SPLITS:
            raise RowError("bad_value", f"split is {split!r}; expected one of {', '.join(SPLITS)}")
        product["split"] = split
        return product

    def _get(self, fields: Mapping[str, Any], name: str) -> Any:
        for column in self._columns(name):
            value = fields.get(column)
            if value not in (None, "", []):
                return value
        return None

    def _columns(self, name: str) -> tuple[str, ...]:
        return (self.columns[name],) if name in self.columns else SYNONYMS.get(name, (name,))

    def _product_id(self, value: Any) -> str:
        text = _text(value)
        if not text:
            raise RowError("missing_product_id", "the row has no product id")
        if len(text) > MAX_ID_CHARACTERS:
            raise RowError(
                "bad_value",
                f"the product id has {len(text)} characters; at most {MAX_ID_CHARACTERS}",
            )
        return text

    def _image_uris(self, value: Any) -> list[str]:
        names = value.split(self.list_separator) if isinstance(value, str) else value
        if not names:
            raise RowError("missing_images", "the row names no picture")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RowError("bad_image_uri", f"pictures are {str(value)[:80]!r}; expected text or a list of it")
        uris = dict.fromkeys(self._image_uri(name.strip()) for name in names if name.strip())
        if not uris:
            raise RowError("missing_images", "the row names no picture")
        return list(uris)

    def _image_uri(self, name: str) -> str:
        _check_encoding(name)
        if re.match(r"s3://[^/]+/.|(?i:https?)://[^/?#]+(/[^#]|\?.)", name):
            return name
        if "://" in name or "\0" in name:
            raise RowError("bad_image_uri", f"{name[:120]!r}; expected a path, s3://, http:// or https://")
        base = self.image_base.rstrip("/")
        if storage.is_s3(base):
            key = os.path.normpath(name)
            if key.startswith(("..", "/")):
                raise RowError("bad_image_uri", f"{name[:120]!r} leads out of {base}")
            return f"{base}/{key}"
        path = os.path.normpath(os.path.join(base or "/", name))
        if os.path.commonpath([path, base or "/"]) != (base or "/"):
            raise RowError(
                "bad_image_uri",
                f"{name[:120]!r} leads out of {base}; name another folder with --image-base",
            )
        return path

    def _names(self, value: Any) -> CategoryPath:
        if value is None:
            return ()
        names = value.split(self.path_separator) if isinstance(value, str) else value
        if not isinstance(names, list):
            raise RowError("bad_category_path", f"{str(value)[:80]!r}; expected text or a list of names")
        path = tuple(str(name).strip() for name in names)
        _check_encoding("".join(path))
        return path

    def _category_path(self, value: Any) -> CategoryPath:
        path = self._names(value)
        if not path:
            return ()
        try:
            check_path(path)
        except TaxonomyError as error:
            raise RowError("bad_category_path", str(error)) from None
        if self.taxonomy is not None and path not in self.taxonomy.leaf_set:
            raise RowError(
                "unknown_category",
                f"{format_path(path)!r} is no leaf of the taxonomy {self.taxonomy.name!r}",
            )
        return path


def _check_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError("bad_encoding", f"{text[:80]!r} is not valid Unicode text") from None


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value).replace("\0", "").encode("utf-8", "replace").decode().strip()
    return text or None


def _price(value: Any) -> float | None:
    if value is None or value == "":
        return None
    text = THOUSANDS_SPACE.sub("", str(value).strip())
    if DECIMAL_COMMA.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    try:
        price = float(text.replace(",", ""))
    except ValueError:
        raise RowError("bad_value", f"price is {str(value)[:40]!r}; expected a number") from None
    if not math.isfinite(price):
        raise RowError("bad_value", f"price is {price}; expected a finite number")
    return price


def _time(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise RowError("bad_value", f"crawled_at is {str(value)[:40]!r}; expected an ISO 8601 time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
