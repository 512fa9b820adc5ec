"""The links of a listing: to its products, and to its next page."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

import lxml.html
from parsel import Selector

from atlas_ray.crawl.store import Store
from atlas_ray.extraction.page import Page, host_of, text_of
from atlas_ray.extraction.structured import Item, StructuredData

CURRENT = "//*[@aria-current='page' or contains(concat(' ', @class, ' '), ' active ') or contains(@class, 'current')]"
AFTER = "(following-sibling::*[1] | ../following-sibling::*[1])/descendant-or-self::a[@href]"
MAX_CURRENT = 200
"""Elements looked at that may be the current page's number; each may hold all of the page."""
TILE_DEPTH = 8
"""How far above a link the element may be that marks it as one to a product."""
PAGINATION_DEPTH = 5
"""The same for a link to another page."""
PRODUCT_TILE = re.compile(r"(^|[-_ ])(product|item|goods|sku)([-_ ]|s?$|card|tile|cell|box)", re.IGNORECASE)
PAGINATION = re.compile(r"pag(er|in|ing|es?)|pager|paging", re.IGNORECASE)
NEXT = re.compile(
    r"next( page)?|nächste( seite)?|weiter|suivante?|page suivante|siguiente|próxim[ao]|avanti|successiv[ao]|"
    r"volgende|następna|další|ďalej|следующая|вперед|sonraki|下一页|下一頁|次へ|다음|التالي|[>›»→⟩]",
    re.IGNORECASE,
)


def product_links(page: Page, store: Store) -> list[str]:
    """Return the products that a listing links to: absolute URLs of the store, in the page's order.

    By the store's selector; without one by the page's ItemList or Products, or else by the links
    with a picture or heading inside of what is marked as a product.
    """
    if store.product_links:
        return _of_store(page, store, _selected(page, store.product_links))
    found = _of_store(page, store, _listed(StructuredData(page)))
    return found or _of_store(page, store, _tiles(page))


def next_page(page: Page, store: Store) -> str | None:
    """Return a listing's next page as an absolute URL of the store, or None.

    By the store's selector; without one by `rel=next`, by a link in a pagination that says so, or
    by the link after the current page's number.
    """
    found = _selected(page, store.next_page) if store.next_page else _forward(page)
    return next(iter(_of_store(page, store, found)), None)


def in_domains(url: str, domains: Iterable[str]) -> bool:
    """Return whether a URL's host is one of these domains or below one."""
    host = "." + host_of(url)
    return any(host.endswith("." + host_of(f"//{domain}")) for domain in domains)


def _of_store(page: Page, store: Store, addresses: Iterable[str]) -> list[str]:
    links: dict[str, None] = {}
    for address in addresses:
        url = page.absolute(address) if address.strip() and not address.startswith("#") else None
        if url and url not in page.addresses and in_domains(url, store.allowed_domains):
            links.setdefault(url)
    return list(links)


def _selected(page: Page, selector: str) -> Iterator[str]:
    for match in page.selector.css(selector):
        yield from _address(match)


def _address(match: Selector) -> list[str]:
    """Return what a match leads to: itself if it is an attribute, else its link or the first inside."""
    if isinstance(match.root, str):
        return [match.root]
    return match.xpath("(descendant-or-self::*[@href])[1]/@href").getall()


def _listed(data: StructuredData) -> Iterator[str]:
    for found in data.of_type("itemlist", "collectionpage", "searchresultspage"):
        for listing in (found, *found.items("mainentity")):
            for entry in listing.items("itemlistelement"):
                for item in (entry, *entry.items("item")):
                    yield from _urls(item)
    for item in data.of_type("product", "listitem"):
        yield from _urls(item)


def _urls(item: Item) -> Iterator[str]:
    for value in item.values("url", "item"):
        if isinstance(value, str):
            yield value
    if "product" in item.types:
        for offer in item.items("offers"):
            if url := offer.text("url"):
                yield url


def _tiles(page: Page) -> Iterator[str]:
    for link in page.tree.xpath("//a[@href][.//img or ancestor::h2 or ancestor::h3 or .//h2 or .//h3]"):
        for parent in (link, *islice(link.iterancestors(), TILE_DEPTH)):
            if PRODUCT_TILE.search(parent.get("class", "")):
                yield link.get("href")
                break


def _forward(page: Page) -> Iterator[str]:
    yield from page.tree.xpath("//*[self::link or self::a][contains(concat(' ', @rel, ' '), ' next ')]/@href")
    for link in page.tree.xpath("//a[@href]"):
        names = [link.get("aria-label", ""), link.get("title", ""), text_of(link)]
        if any(NEXT.fullmatch(name.strip()) for name in names) and _in_pagination(link):
            yield link.get("href")
    for element in page.tree.xpath(CURRENT)[:MAX_CURRENT]:
        if not _in_pagination(element):
            continue
        number = text_of(element)
        if re.fullmatch(r"\d{1,6}", number):
            yield from (link.get("href") for link in element.xpath(AFTER) if text_of(link) == str(int(number) + 1))


def _in_pagination(element: lxml.html.HtmlElement) -> bool:
    near = (element, *islice(element.iterancestors(), PAGINATION_DEPTH))
    return any(PAGINATION.search(f"{node.get('class', '')} {node.get('id', '')}") for node in near)
