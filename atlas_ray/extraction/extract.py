"""The extraction of a saved page: its product, or the reason why it shows none."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from parsel import Selector

from atlas_ray.extraction.breadcrumbs import category_names, find_breadcrumb, split_names, tidy_names
from atlas_ray.extraction.data_layer import brand_in_scripts
from atlas_ray.extraction.decimals import price_text
from atlas_ray.extraction.labels import LABELS, Labels, letters, number_in, number_of
from atlas_ray.extraction.offers import (
    Offer,
    choose_offer,
    named_offers,
    offers_of,
    parse_availability,
    states_availability,
)
from atlas_ray.extraction.page import Page, clean, is_front, plain_key, text_of
from atlas_ray.extraction.pictures import loose_pictures
from atlas_ray.extraction.price_tags import current_price, shown_price
from atlas_ray.extraction.shown import shown_product
from atlas_ray.extraction.stock import says_sold_out, stock
from atlas_ray.extraction.structured import Item, StructuredData, plain
from atlas_ray.extraction.subject import PRODUCT_TYPES, main_product
from atlas_ray.formats.prices import parse_currency, parse_price

OG_IMAGES = ("og:image:secure_url", "og:image:url", "og:image")
OG_AVAILABILITY = ("product:availability", "og:availability")
MAX_IMAGES = 100
MAX_VARIANTS = 500
NUMBERS = ("sku", "productid", "identifier", "mpn", "gtin", "gtin8", "gtin12", "gtin13", "gtin14", "isbn")
LABEL = re.compile(r"^[^:]{1,60}:\s+(?=\S)")
"""Labels that a shop writes before a value: `Brand: ACME`, `SKU: 77`."""
UNFILLED = re.compile(r"\$\w+|\$?\{.*\}|%\w+%|undefined|null|n/a", re.IGNORECASE)
"""Placeholders of a template that was not filled in."""


FIELDS = (
    "title", "description", "price", "currency", "brand", "sku", "availability", "breadcrumb", "image_urls",
)  # fmt: skip
"""The fields that a CSS selector may be given for."""
NO_SELECTORS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Extracted:
    """A product that a page shows; what the page does not say is None or ().

    Attributes:
        url: The canonical URL on the page's own site, without fragment.
        title: Its name.
        description: Plain text.
        price: At least 0, in `currency`; if the data has none, the only one that the page shows.
        currency: ISO 4217.
        brand: The maker's name.
        sku: The shop's number of it: the one that the page shows, else the one that its data states; or the
            maker's, or the number in the page's address.
        availability: schema.org's name: `InStock`, `OutOfStock`, ...; if the data has none, after the
            control that puts the product into the cart; if there is none, `InStock` for what has a price
            on a page that nowhere says sold out.
        breadcrumb: The names from the shop's top category down, without "Home" and the product.
        image_urls: Absolute http(s) URLs, in the page's order.
        origins: Field -> `selector`, `json-ld`, `microdata`, `rdfa`, `opengraph`, `markup`, `script`,
            `url`, or `offer` (availability concluded from a price).
    """

    url: str
    title: str
    description: str | None
    price: float | None
    currency: str | None
    brand: str | None
    sku: str | None
    availability: str | None
    breadcrumb: tuple[str, ...]
    image_urls: tuple[str, ...]
    origins: Mapping[str, str]


@dataclass(frozen=True)
class NotAProduct:
    """Why a page gives no product.

    Attributes:
        reason: `not_html`, `empty_page`, `no_product_data`, `several_products` (a listing),
            `other_product` (what it describes has another page), `article` or `no_title`.
    """

    reason: str


def extract(page: Page, selectors: Mapping[str, str] = NO_SELECTORS) -> Extracted | NotAProduct:
    """Read the product that a page shows.

    A value comes from the shop's CSS selector of that name if there is one, else from the first that has it of
    JSON-LD, microdata, RDFa and OpenGraph; breadcrumb, brand, SKU, availability and price also from the
    page's markup, and at last the brand from its scripts and the SKU from its address. An SKU that the page
    shows as another than that of its data goes before it, and so does a labelled brand before one that
    the page does not show. Raises nothing, whatever the page holds.
    """
    if not page.body.strip():
        return NotAProduct("empty_page")
    if not page.is_html:
        return NotAProduct("not_html")
    data = StructuredData(page)
    values = _Values()
    _read_selectors(page, selectors, values)
    products = main_product(page, data)
    if isinstance(products, str):
        selected = "title" in values.found and values.found.keys() & {"price", "image_urls", "sku"}
        if not selected and not (products == "no_product_data" and _is_opengraph_product(page)):
            shown = shown_product(page, data) if products == "no_product_data" else None
            if shown is None:
                return NotAProduct(products)
            values.put("title", shown.title, "markup")
            values.put("image_urls", _urls(page, shown.pictures), "markup")
            _put_offer(Offer(shown.price, shown.currency), "markup", values)
        products = []
    for origin in dict.fromkeys(item.origin for item in products):
        _read_items([item for item in products if item.origin == origin], page, values)
    if "image_urls" not in values.found:
        values.put("image_urls", _urls(page, loose_pictures(page)), "microdata")
    _read_opengraph(page, values)
    title = values.found.get("title")
    if not title:
        return NotAProduct("no_title")
    if "breadcrumb" in values.found:
        values.found["breadcrumb"] = tidy_names(values.found["breadcrumb"], page, title)
    labels = Labels(page)
    _read_number(labels, products, values)
    for name in LABELS:
        values.put(name, labels.first(name), "markup")
    _read_brand(labels, page, values)
    values.put("sku", labels.marked_number, "markup")
    values.put("sku", number_of(page), "url")
    if "brand" not in values.found:
        values.put("brand", brand_in_scripts(page, title, values.found.get("sku")), "script")
    _read_price_tags(page, title, values)
    if "availability" not in values.found:
        values.put("availability", stock(page, title), "markup")
    silent = "availability" not in values.found and not _states_availability(page, products, selectors)
    if silent and values.found.get("price") and not says_sold_out(page):
        # A classified ad, or a shop whose cart its scripts draw: what has a price is offered.
        values.put("availability", "InStock", "offer")
    if "breadcrumb" not in values.found:
        values.put("breadcrumb", *find_breadcrumb(page, data, title))
    for item in products:
        values.put("breadcrumb", tidy_names(category_names(item), page, title), item.origin)
    fields: dict[str, Any] = {name: values.found.get(name) for name in FIELDS}
    fields["breadcrumb"] = fields["breadcrumb"] or ()
    fields["image_urls"] = fields["image_urls"] or ()
    url = page.addresses[0] if page.addresses else page.url
    return Extracted(url=url, origins=values.origins, **fields)


class _Values:
    """Values by field, each with its origin; the first that is put stays."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def put(self, name: str, value: Any, origin: str) -> None:
        if name not in self.found:
            self.prefer(name, value, origin)

    def prefer(self, name: str, value: Any, origin: str) -> None:
        """Put a value in the place of any that is not from a selector."""
        unfilled = name in ("brand", "sku") and isinstance(value, str) and UNFILLED.fullmatch(value)
        if value not in (None, "", ()) and not unfilled and self.origins.get(name) != "selector":
            self.found[name] = value
            self.origins[name] = origin


def _read_selectors(page: Page, selectors: Mapping[str, str], values: _Values) -> None:
    # The currency first: it tells how many decimals a price has.
    for name, selector in sorted(selectors.items(), key=lambda field: field[0] != "currency"):
        matches = page.selector.css(selector)
        texts = [text for match in matches if (text := _shown(match))]
        if name == "image_urls":
            values.put(name, _urls(page, (address for match in matches for address in _sources(match))), "selector")
        elif name == "breadcrumb":
            names = texts if len(texts) > 1 else split_names(texts[0]) if texts else []
            values.put(name, tuple(names), "selector")
        elif texts and name == "price":
            text = next(filter(None, map(_shown_price, matches)))
            values.put(name, parse_price(text, by_machine=False, currency=values.found.get("currency")), "selector")
            values.put("currency", parse_currency(text) if "currency" not in selectors else None, "selector")
        elif texts and name == "currency":
            values.put(name, parse_currency(texts[0]), "selector")
        elif texts and name == "availability":
            values.put(name, parse_availability(texts[0]), "selector")
        elif texts:
            values.put(name, texts[0], "selector")


def _shown(match: Selector) -> str:
    root = match.root
    return clean(root) if isinstance(root, str) else clean(root.get("content") or "") or text_of(root)


def _shown_price(match: Selector) -> str:
    root = match.root
    return _shown(match) if isinstance(root, str) or root.get("content") else price_text(root)


def _sources(match: Selector) -> list[str]:
    """Return the picture addresses of a match: an attribute, or those of an element."""
    if isinstance(match.root, str):
        return [match.root]
    for name in ("data-zoom-image", "data-large", "data-src", "src", "content", "href"):
        if value := match.root.get(name):
            return [value]
    return match.xpath(".//img/@src").getall()


def _read_items(items: list[Item], page: Page, values: _Values) -> None:
    """Take the fields of one product as one syntax describes it, perhaps in several items (variants)."""
    origin = items[0].origin
    variants = [variant for item in items for variant in item.items("hasvariant", "model")][:MAX_VARIANTS]
    # One variant and one offer first: what they say of price, stock and number belongs together.
    offers = [offer for variant in variants for offer in offers_of(variant, variant)]
    if not any(offer.price is not None for offer in offers):
        offers = [*(offer for item in items for offer in offers_of(item, item)), *offers]
    named: list[Offer] = next(filter(None, (named_offers(offers, url) for url in (page.url, *page.addresses))), [])
    chosen = choose_offer(offers, named, values.found.get("price"))
    shown = [variant for variant in variants if variant in chosen.sources]
    everything = [*shown, *items, *(variant for variant in variants if variant not in shown)]

    def first(*names: str) -> str | None:
        return next((text for item in everything if (text := item.text(*names))), None)

    # The group names the product; a variant is one of its sizes.
    title = next((text for item in (*items, *shown) if (text := item.text("name"))), None)
    values.put("title", title, origin)
    values.put("description", first("description"), origin)
    values.put("brand", _brand(first("brand", "manufacturer"), page), origin)
    values.put("sku", _stated_number(chosen, items, bool(named or shown), title), origin)
    values.put("image_urls", _urls(page, (url for item in everything for url in _pictures(item))), origin)
    _put_offer(chosen, origin, values)


def _stated_number(chosen: Offer, items: list[Item], is_exact: bool, title: str | None) -> str | None:
    """Return the number of the chosen offer or variant, else of the product.

    The number of a product of which the offer's is an extension (`AB12` of `AB12-38`) stands for all of its
    offers, unless the offer is that of a variant or the page's address names it.
    """
    chosen_only = [source for source in chosen.sources if source not in items]
    is_exact = is_exact or any(source.types & {*PRODUCT_TYPES} for source in chosen_only)
    products = sorted(items, key=lambda item: item not in chosen.sources)
    for names in (("sku",), ("productid", "identifier"), ("mpn",)):
        of_offer, of_product = (
            next(filter(None, (_number(item, title, *names) for item in group)), None)
            for group in (chosen_only, products)
        )
        extends = of_offer and of_product and letters(of_offer).startswith(letters(of_product))
        if found := of_product if extends and not is_exact else of_offer or of_product:
            return found
    return None


def _brand(text: str | None, page: Page) -> str | None:
    """Return a brand without its label, and without the shop's name that the page's title also ends with."""
    text = LABEL.sub("", text or "")
    name, bar, shop = text.rpartition(" | ")
    return name if bar and any(title.endswith(shop) for title in page.titles) else text


def _number(item: Item, title: str | None, *names: str) -> str | None:
    """Return a number of an item without its label; None for words alone, and for the product's name.

    A `sku` is what the shop says it is; the others often have words after the number.
    """
    text = LABEL.sub("", item.text(*names) or "")
    if UNFILLED.fullmatch(text):
        return None
    if "sku" in names:
        return text if plain_key(text) != plain_key(title or "") else None
    return number_in(text)


def _read_number(labels: Labels, products: list[Item], values: _Values) -> None:
    """Take the number that a page shows, if its structured data states it under no name.

    The shown one is that by which people order and ask; the stated one then is a key of the shop's
    database, or that of one size. A number that is stated says itself what it is: a shown one that
    is stated as the maker's (`mpn`, `gtin`) leaves the stated `sku` where it is.
    """
    sizes = {letters(number) for item in products if (number := item.text("sku", "productid"))}
    # A sign in the page's code is weaker than a label: it counts only if the data gives a number for each size alone.
    shown = labels.number or (labels.marked_number if len(sizes) > 1 else None)
    sources = (source for item in products for source in (item, *item.items("offers"), *item.items("hasvariant")))
    stated = {LABEL.sub("", text) for source in sources for name in NUMBERS if (text := source.text(name))}
    stated.add(values.found.get("sku", ""))
    known = {letters(spelling) for text in stated for spelling in (text, number_in(text) or "", *text.split())}
    if shown and letters(shown) not in known:
        values.prefer("sku", shown, "markup")


def _read_brand(labels: Labels, page: Page, values: _Values) -> None:
    """Take the brand that stands beside a label, if the one of the data is shown to nobody."""
    stated, labelled = values.found.get("brand"), labels.first("brand")
    if stated and labelled and stated != labelled and not page.shows(stated):
        values.prefer("brand", labelled, "markup")


def _states_availability(page: Page, products: list[Item], selectors: Mapping[str, str]) -> bool:
    """Return whether an availability is stated, also in words that are not known, or asked for by a selector."""
    everything = (item for product in products for item in (product, *product.items("hasvariant", "model")))
    return (
        "availability" in selectors
        or any(page.metas.get(name) for name in OG_AVAILABILITY)
        or any(map(states_availability, everything))
    )


def _read_price_tags(page: Page, title: str, values: _Values) -> None:
    if "price" not in values.found:
        shown = shown_price(page, title)
        if values.found.get("currency", shown.currency) == shown.currency:
            _put_offer(shown, "markup", values)
    elif values.origins["price"] == "microdata" and (price := current_price(page, values.found["price"])):
        values.prefer("price", price, "markup")


def _put_offer(offer: Offer, origin: str, values: _Values) -> None:
    priced = "price" in values.found
    values.put("price", offer.price, origin)
    if not priced or values.origins.get("price") == "selector":  # no price takes another's currency
        values.put("currency", offer.currency, origin)
    values.put("availability", offer.availability, origin)


def _pictures(item: Item) -> Iterable[str]:
    for value in item.values("image"):
        if isinstance(value, str):
            yield value
        elif url := value.text("contenturl", "url", "@id", "thumbnailurl"):
            yield url


def _urls(page: Page, addresses: Iterable[str]) -> tuple[str, ...]:
    urls = (page.absolute(plain(address)) for address in addresses if address.strip())
    # An address that some pages give if they have no picture, "/" or "", is that of the shop's front page.
    return tuple(dict.fromkeys(url for url in urls if url and not is_front(url)))[:MAX_IMAGES]


def _read_opengraph(page: Page, values: _Values) -> None:
    metas = page.metas
    values.put("title", metas.get("og:title"), "opengraph")
    values.put("description", metas.get("og:description"), "opengraph")
    values.put("brand", metas.get("product:brand") or metas.get("og:brand"), "opengraph")
    values.put("sku", metas.get("product:retailer_item_id") or metas.get("product:retailer_part_no"), "opengraph")
    values.put("image_urls", _urls(page, filter(None, map(metas.get, OG_IMAGES)))[:1], "opengraph")
    availability = next((text for name in OG_AVAILABILITY if (text := metas.get(name))), "")
    _put_offer(Offer(_og_price(page), _og_currency(page), parse_availability(availability)), "opengraph", values)


def _is_opengraph_product(page: Page) -> bool:
    """Return whether OpenGraph calls the page a product's (`product`, `product.item`) and says its price."""
    declared = re.search(r"\bproduct\b", page.metas.get("og:type", "").lower())
    return bool(declared) and _og_price(page) is not None


def _og_price(page: Page) -> float | None:
    for name in ("product:sale_price:amount", "product:price:amount", "og:price:amount"):
        if (price := parse_price(page.metas.get(name, ""), currency=_og_currency(page))) is not None:
            return price
    return None


def _og_currency(page: Page) -> str | None:
    names = ("product:sale_price:currency", "product:price:currency", "og:price:currency")
    return next((code for name in names if (code := parse_currency(page.metas.get(name, "")))), None)
