"""Descriptions of the shops to crawl: start URLs, selectors and limits."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cssselect import SelectorError

from atlas_ray.errors import ConfigError, TaxonomyError
from atlas_ray.extraction.extract import FIELDS
from atlas_ray.extraction.page import Page, host_of, join_url
from atlas_ray.formats.delimited import Delimited, column_key
from atlas_ray.formats.text_files import open_text
from atlas_ray.settings import Settings, read_settings, setting
from atlas_ray.taxonomy import CategoryPath, parse_path

EMPTY = Page("", b"")
PATH_COLUMN = "Taxonomy"
NAME = re.compile(r"(?=\S)(?!\.)[^/\\\x00-\x1f\x7f]{1,100}(?<=\S)")


@dataclass(frozen=True)
class StartUrl:
    """A listing to begin at.

    Attributes:
        url: Its address.
        category_path: What its products are, if the one who wrote it says so; otherwise ().
    """

    url: str
    category_path: CategoryPath = ()


@dataclass(frozen=True, kw_only=True)
class Store(Settings):
    """A shop. Without selectors, pages are read by their structured data.

    Raises:
        ConfigError: naming the field, its value and what was expected.
    """

    name: str = setting("name of the shop, as it stands in the products table")
    start_urls: tuple[StartUrl, ...] = setting("addresses of listings to begin at")
    allowed_domains: tuple[str, ...] = setting("domains to stay on; by default those of the start URLs", ())
    product_links: str | None = setting("CSS selector of the links to products on a listing", None)
    next_page: str | None = setting("CSS selector of the link to a listing's next page", None)
    fields: Mapping[str, str] = field(default_factory=dict)
    render: bool = setting("run the pages' scripts in a browser first", False)
    max_idle_pages: int = setting(
        "pages in a row without a new product after which a listing is left", 20, low=1, high=1_000_000
    )
    delay_s: float = setting("seconds between two requests", 1.0, low=0.0, high=3600.0)
    concurrency: int = setting("requests at the same time", 2, low=1, high=64)

    def __post_init__(self) -> None:
        """Refuse values out of range, and invalid selectors."""
        super().__post_init__()
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"name is {self.name!r}; expected up to 100 characters, without / or \\, no dot first: it names files"
            )
        if not self.start_urls:
            raise ConfigError("start_urls is empty; expected at least one http(s) address")
        for start in self.start_urls:
            if join_url("", start.url) is None:
                raise ConfigError(f"start_urls holds {start.url!r}; expected an http(s) address")
        if not self.allowed_domains:
            hosts = dict.fromkeys(host_of(start.url) for start in self.start_urls)
            object.__setattr__(self, "allowed_domains", tuple(hosts))
        for name in self.fields:
            if name not in FIELDS:
                raise ConfigError(f"fields holds {name!r}{_hint(name, FIELDS)}")
        for name in ("product_links", "next_page"):
            _check_selector(name, getattr(self, name))
        for name, selector in self.fields.items():
            _check_selector(f"fields.{name}", selector)


def read_stores(uri: str) -> tuple[Store, ...]:
    """Read shops from YAML (one shop, or a list under `stores`), or from an Atlas CSV.

    The CSV has a column `Taxonomy` of category paths (`Men -> Western Wear -> Jeans`, or with `>`)
    and a column a shop, named like it, whose cells hold addresses separated by white space, or nothing.

    Raises:
        ConfigError: naming the file, the shop, and the field or line.
        StorageError: if the file cannot be read.
    """
    if uri.lower().endswith((".csv", ".tsv")):
        stores = tuple(_read_csv(uri))
    else:
        document = read_settings(uri)
        listed = document["stores"] if set(document) == {"stores"} else [document]
        if not isinstance(listed, list) or not listed:
            raise ConfigError(f"{uri}: stores is {type(listed).__name__}; expected a list of shops")
        stores = tuple(_build(values, uri, number) for number, values in enumerate(listed, 1))
    if not stores:
        raise ConfigError(f"{uri}: no shop has an address in it")
    names = [store.name for store in stores]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{uri}: the shop {name!r} is listed twice")
    return stores


def _build(values: Any, uri: str, number: int) -> Store:
    if not isinstance(values, dict):
        raise ConfigError(f"{uri}: shop {number} is {type(values).__name__}; expected lines of `name: value`")
    source = f"{uri}, shop {values.get('name', number)!r}"
    known = [entry.name for entry in fields(Store)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{source}: no field {name!r}{_hint(str(name), known)}")
    for name in ("name", "start_urls"):
        if name not in values:
            raise ConfigError(f"{source}: {name} is missing")
    taken = dict(values)
    try:
        taken["start_urls"] = tuple(map(_start_url, _texts("start_urls", values["start_urls"], of=(str, dict))))
        taken["allowed_domains"] = tuple(_texts("allowed_domains", values.get("allowed_domains") or [], of=(str,)))
        taken["fields"] = values.get("fields") or {}
        if not isinstance(taken["fields"], dict):
            raise ConfigError(f"fields is {taken['fields']!r}; expected lines of `field: CSS selector`")
        return Store(**taken)
    except (ConfigError, TaxonomyError) as error:
        raise ConfigError(f"{source}: {error}") from None


def _texts(name: str, value: Any, of: tuple[type, ...]) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    for entry in values:
        if not isinstance(entry, of):
            raise ConfigError(f"{name} holds {entry!r}; expected a text or a list of them")
    return values


def _start_url(value: str | dict[str, Any]) -> StartUrl:
    """Read an address, or `url` with the `category_path` of its products."""
    if isinstance(value, str):
        return StartUrl(value.strip())
    if "url" not in value or not set(value) <= {"url", "category_path"} or not all(map(_is_text, value.values())):
        raise ConfigError(f"start_urls holds {value!r}; expected a text, or url and category_path, each a text")
    path = value.get("category_path")
    return StartUrl(value["url"].strip(), parse_path(path) if path else ())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _read_csv(uri: str) -> Iterator[Store]:
    stream = open_text(uri, ConfigError)
    table = Delimited(stream, [PATH_COLUMN], source=uri, error=ConfigError)
    path_column = next((name for name in table.header if column_key(name) == column_key(PATH_COLUMN)), "")
    if not path_column or len(table.header) < 2 or not all(table.header):
        raise ConfigError(f"{uri}: the columns are {table.header[:8]}; expected {PATH_COLUMN} and a column a shop")
    starts: dict[str, list[StartUrl]] = {name: [] for name in table.header if name != path_column}
    for line, _, cells, error in table:
        if error:
            raise ConfigError(f"{uri}, line {line}: {error.message}")
        if not cells:
            continue
        row = dict(zip(table.header, cells, strict=True))
        try:
            path = parse_path(row.pop(path_column).replace("->", ">"))
        except TaxonomyError as error:
            raise ConfigError(f"{uri}, line {line}: {error}") from None
        for name, cell in row.items():
            for url in cell.split():
                if join_url("", url) is None:
                    raise ConfigError(f"{uri}, line {line}, column {name}: {url!r}; expected http(s) addresses")
                starts[name].append(StartUrl(url, path))
    stream.warn_if_assumed(uri)
    for name, urls in starts.items():
        if urls:
            yield Store(name=name, start_urls=tuple(urls))


def _check_selector(name: str, selector: Any) -> None:
    if selector is None:
        return
    if not isinstance(selector, str) or not selector.strip():
        raise ConfigError(f"{name} is {selector!r}; expected a CSS selector")
    try:
        EMPTY.selector.css(selector)  # a selector may be well formed and of no use: `svg|a` names a namespace
    except (SelectorError, ValueError) as error:
        raise ConfigError(f"{name} is {selector!r}, no CSS selector: {error}") from None


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; the fields are {', '.join(known)}"
