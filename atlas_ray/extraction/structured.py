"""The structured data of a page: JSON-LD, microdata and RDFa, as one kind of item."""

import copy
import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lxml.html
from extruct.w3cmicrodata import MicrodataExtractor
from w3lib.html import remove_tags

from atlas_ray.extraction.decimals import price_text
from atlas_ray.extraction.loose_json import load_values
from atlas_ray.extraction.page import Page, clean
from atlas_ray.extraction.rdfa import rdfa_nodes
from atlas_ray.extraction.visibility import is_hidden
from atlas_ray.formats.values import is_missing

MAX_DEPTH = 24
"""Depth to which items inside items are followed."""
MAX_WHOLE = 1e15
"""Numbers below are written without `.0`."""
MAX_RAW_TEXT = 100_000
MAX_MARKED_ELEMENTS = 5_000
"""Elements with microdata or RDFa attributes past which a page's markup is left alone."""
WANTED = re.compile(r"product|breadcrumb|vehicle|\bcar\b|book|itemlist|article|posting", re.IGNORECASE)
PRICES = re.compile("(?:low|high|min|max)?price", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Item:
    """A thing that a page describes.

    Attributes:
        origin: `json-ld`, `microdata` or `rdfa`.
        types: Its types in lower case, without their vocabulary: `http://schema.org/Product` is `product`.
        properties: Values by name, the name likewise.
    """

    origin: str
    types: frozenset[str]
    properties: Mapping[str, tuple["str | Item", ...]]

    def values(self, *names: str) -> list["str | Item"]:
        """Return the values of the first of these properties that has any."""
        return next((list(self.properties[name]) for name in names if self.properties.get(name)), [])

    def items(self, *names: str) -> list["Item"]:
        """Return the values that are items."""
        return [value for value in self.values(*names) if isinstance(value, Item)]

    def text(self, *names: str) -> str | None:
        """Return the first text among the properties; of an item, its name."""
        for name in names:
            for value in self.properties.get(name, ()):
                text = value.text("name", "@value") if isinstance(value, Item) else plain(value)
                if text:
                    return text
        return None


def plain(text: str) -> str:
    """Return text without tags and character references, which JSON-LD often holds."""
    text = text[:MAX_RAW_TEXT]
    if "&" in text:
        text = html.unescape(text)
    # What holds tags is HTML, with character references of its own.
    return clean(html.unescape(remove_tags(text)) if "<" in text else text)


@dataclass(frozen=True)
class StructuredData:
    """The items of a page, by syntax, each read when first asked for."""

    page: Page

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Every item at the top level, in the order JSON-LD, microdata, RDFa."""
        return (
            *_convert(_jsonld(self.page), "json-ld"),
            *_convert(_microdata(self.page), "microdata"),
            *_convert(_rdfa(self.page), "rdfa"),
        )

    def of_type(self, *types: str) -> list[Item]:
        """Return the top-level items of one of these types."""
        return [item for item in self.items if item.types.intersection(types)]


def _jsonld(page: Page) -> Iterator[dict[str, Any]]:
    for script in page.tree.iter("script"):
        if "ld+json" in script.get("type", "").lower():
            for node in _flat(load_values(script.text or "")):
                graph = node.get("@graph")
                yield from _flat(graph) if graph is not None else (node,)


def _flat(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of an object or a list of them."""
    for node in value if isinstance(value, list) else [value]:
        if isinstance(node, dict):
            yield node
        elif isinstance(node, list):
            yield from (inner for inner in node if isinstance(inner, dict))


def _microdata(page: Page) -> Iterator[dict[str, Any]]:
    marked = page.tree.xpath("//*[@itemscope]/@itemtype")
    if not any(map(WANTED.search, marked)) or _is_costly(page):
        return
    try:
        found = _Microdata(strict=True).extract_items(page.tree, page.base_url)
    except (RecursionError, ValueError):
        return
    for item in found:
        yield _microdata_node(item)


class _Microdata(MicrodataExtractor):  # type: ignore[misc]
    """Microdata of which a text is what readers see of it."""

    def _extract_textContent(self, node: lxml.html.HtmlElement) -> str:  # noqa: N802
        if any(map(PRICES.fullmatch, node.get("itemprop", "").split())):
            return price_text(node)
        shown = node
        # The rest of a description may wait for a click.
        if node.get("itemprop") != "description" and any(map(is_hidden, node.iterdescendants("*"))):
            shown = copy.deepcopy(node)
            shown.tail = None
            for inner in [inner for inner in shown.iterdescendants("*") if is_hidden(inner)]:
                inner.drop_tree()
        return str(super()._extract_textContent(shown) or super()._extract_textContent(node))


def _microdata_node(item: Mapping[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = {"@type": item.get("type") or []}
    if "value" in item:
        node["@value"] = item["value"]
    for name, values in item.get("properties", {}).items():
        node[name] = [_microdata_node(value) if isinstance(value, dict) else value for value in values]
    return node


def _is_costly(page: Page) -> bool:
    """Return whether text would be read over and over: marked elements inside one another, or references."""
    if page.tree.xpath("count(//*[@itemprop])") > MAX_MARKED_ELEMENTS or len(page.tree.xpath("//@itemref")) > 50:
        return True
    elements = page.tree.xpath("//*[@itemprop and not(@itemscope)]")
    return any(len(element.xpath("ancestor::*[@itemprop and not(@itemscope)]")) > 8 for element in elements)


def _rdfa(page: Page) -> Iterator[dict[str, Any]]:
    marked = page.tree.xpath("//@typeof")
    if not any(map(WANTED.search, marked)):
        return
    if page.tree.xpath("count(//*[@property])") > MAX_MARKED_ELEMENTS // 5:
        return
    try:
        yield from rdfa_nodes(page)
    except (RecursionError, ValueError, AttributeError, AssertionError):
        return


def _local(name: str) -> str:
    """Return the last part of a name: `http://schema.org/Product`, `schema:Product` -> `product`."""
    return re.split(r"[/#:]", name.strip().rstrip("/"))[-1].lower()


def _convert(nodes: Iterable[dict[str, Any]], origin: str) -> list[Item]:
    """Turn objects in the form of JSON-LD into items, each reference replaced by what it refers to."""
    nodes = list(nodes)
    by_id: dict[str, dict[str, Any]] = {}
    for node in nodes:
        if isinstance(node.get("@id"), str) and len(node) > 1:
            by_id.setdefault(node["@id"], node)
    done: dict[int, Item] = {}
    open_nodes: set[int] = set()

    def item(node: dict[str, Any], depth: int) -> Item:
        if len(node) == 1 and node.get("@id") in by_id:
            node = by_id[node["@id"]]
        if id(node) in done:
            return done[id(node)]
        if id(node) in open_nodes:
            return Item(origin, frozenset(), {})
        open_nodes.add(id(node))
        types = frozenset(_local(kind) for kind in _list(node.get("@type")) if isinstance(kind, str))
        properties: dict[str, tuple[str | Item, ...]] = {}
        for name, value in node.items():
            if name != "@type" and isinstance(name, str):
                found = tuple(values(value, depth + 1))
                if found:
                    key = name if name.startswith("@") else _local(name)
                    properties[key] = properties.get(key, ()) + found
        open_nodes.discard(id(node))
        done[id(node)] = Item(origin, types, properties)
        return done[id(node)]

    def values(value: Any, depth: int) -> Iterator[str | Item]:
        if depth > MAX_DEPTH or value is None or isinstance(value, bool):
            return
        if isinstance(value, float) and not math.isfinite(value):
            return
        if isinstance(value, float) and value.is_integer() and abs(value) < MAX_WHOLE:
            value = int(value)
        if isinstance(value, list):
            for inner in value:
                yield from values(inner, depth + 1)
        elif isinstance(value, dict):
            if ("@value" in value and "@type" not in value) or set(value) == {"@list"}:
                yield from values(value.get("@value", value.get("@list")), depth + 1)
            else:
                yield item(value, depth)
        elif not is_missing(value) and (text := str(value).strip()):
            yield text

    return [item(node, 0) for node in nodes]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
