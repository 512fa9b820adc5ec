"""The subject of a page: the one product that it is about, of all that it describes."""

import re
from collections.abc import Iterable
from itertools import islice
from urllib.parse import parse_qsl, unquote, urlsplit

from atlas_ray.extraction.page import Page, plain_key
from atlas_ray.extraction.pictures import loose_pictures
from atlas_ray.extraction.structured import Item, StructuredData

PRODUCT_TYPES = (
    "product", "productgroup", "individualproduct", "productmodel", "someproducts", "vehicle", "car", "motorcycle",
)  # fmt: skip
LISTING_TYPES = ("itemlist", "collectionpage", "searchresultspage", "offercatalog")
ARTICLE_TYPES = ("article", "newsarticle", "blogposting", "recipe", "reportagenewsarticle", "techarticle")
ASIDE = (
    "isrelatedto", "issimilarto", "isaccessoryorsparepartfor", "isconsumablefor", "hasvariant", "itemlistelement",
    "item",
)  # fmt: skip
"""Properties that lead to products which the page is not about."""
EVIDENCE = (
    "offers", "offer", "offerdetails", "price", "image", "hasvariant", "sku", "productid", "identifier", "mpn", "gtin",
    "gtin13",
)  # fmt: skip
"""Without any of these it is a name with ratings, which shops put on any page."""
MAX_PRODUCTS = 500
"""Largest number of products on a page that are compared; a carousel has some dozens."""


def main_product(page: Page, data: StructuredData) -> list[Item] | str:
    """Return the items that describe the page's own product, or why there is none.

    Returns:
        At least one item; or several_products, other_product, article or no_product_data, the reasons
        of `NotAProduct`.
    """
    described = (item for item in _top_level(data) if item.types.intersection(PRODUCT_TYPES))
    found = (item for item in described if item.values(*EVIDENCE) or (_is_named(item, page) and loose_pictures(page)))
    products = list(islice(found, MAX_PRODUCTS))
    main: list[Item] = []
    reason = "several_products" if data.of_type(*LISTING_TYPES) else "no_product_data"
    for origin in dict.fromkeys(item.origin for item in products):
        chosen = _main_of([item for item in products if item.origin == origin], page, data)
        if isinstance(chosen, str):
            reason = chosen
        else:
            main += chosen
    return main or reason


def _main_of(products: list[Item], page: Page, data: StructuredData) -> list[Item] | str:
    """Choose the page's own product among those of one syntax, or return why there is none.

    Of several it is the one with the page's URL, or else the one that the page is named after. A
    single one must be that on a page which holds a list or an article, or if it names a URL.
    """
    own = [item for item in products if is_page(item, page)]
    named = [item for item in products if _is_named(item, page)]
    for chosen in ([item for item in own if item in named], own, named):
        if len({_key(item) for item in chosen}) == 1:
            return chosen
    if len({_key(item) for item in products}) > 1 or data.of_type(*LISTING_TYPES):
        return "several_products"
    if page.url and any(item.text("url") for item in products):
        return "other_product"
    return "article" if data.of_type(*ARTICLE_TYPES) else products


def _top_level(data: StructuredData) -> Iterable[Item]:
    """Yield the items that the page itself is about: at the top, or as the main entity of its WebPage."""
    aside = {id(other) for item in data.items for name in ASIDE for other in item.items(name)}
    for item in data.items:
        if id(item) not in aside:
            yield item
            yield from item.items("mainentity")


def _key(item: Item) -> str:
    return plain_key(item.text("name") or item.text("sku", "url") or "")


def _is_named(item: Item, page: Page) -> bool:
    """Return whether the page is named after a product."""
    name = plain_key(item.text("name") or "")
    if not name:
        return False
    for whole, parts in _title_parts(page):
        if name in parts or (len(name) >= 10 and name in whole) or (len(whole) >= 10 and whole in name):
            return True
    return False


def _title_parts(page: Page) -> Iterable[tuple[str, set[str]]]:
    """Yield each title of a page, and its parts between signs such as `|`, which may be the product's name."""
    for title in page.titles:
        title = title[:500]
        yield plain_key(title), {plain_key(part) for part in (title, *re.split(r"\s[|–—-]\s|: ", title))}


def is_page(item: Item, page: Page) -> bool:
    """Return whether an item says that its page is this one."""
    pages = item.items("mainentityofpage")
    addresses = [found.text("url", "@id") for found in (item, *pages, *item.items("offers"))]
    urls = [url for address in addresses if address and (url := page.absolute(address))]
    return any(_same_page(url, own) for url in urls for own in page.addresses if own)


def _same_page(one: str, other: str) -> bool:
    """Compare URLs, apart from scheme, host and the parameters that only one of them has."""
    a, b = urlsplit(one), urlsplit(other)
    if unquote(a.path).rstrip("/").lower() != unquote(b.path).rstrip("/").lower():
        return False
    left, right = set(parse_qsl(a.query)), set(parse_qsl(b.query))
    return left <= right or right <= left
