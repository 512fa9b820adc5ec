"""Offers of a product: prices and availabilities as shops write them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

from atlas_ray.extraction.labels import letters
from atlas_ray.extraction.structured import Item
from atlas_ray.formats.prices import parse_currency, parse_price

T = TypeVar("T")
MAX_OFFERS = 500
"""Largest number of offers of a product that are read."""
AVAILABILITIES = {
    name.lower(): name
    for name in (
        "BackOrder", "Discontinued", "InStock", "InStoreOnly", "LimitedAvailability", "MadeToOrder",
        "OnlineOnly", "OutOfStock", "PreOrder", "PreSale", "Reserved", "SoldOut",
    )
} | {"available": "InStock", "oos": "OutOfStock", "availableforbackorder": "BackOrder"}  # fmt: skip
TO_BE_HAD = ("InStock", "LimitedAvailability", "OnlineOnly", "InStoreOnly")
GONE = ("OutOfStock", "SoldOut", "Discontinued")
FORMER_PRICES = re.compile("listprice|strikethrough|msrp|srp|regularprice|minimumadvertised", re.IGNORECASE)
"""Types of prices that a buyer does not pay, such as former ones."""
OTHER_SPECIFICATIONS = frozenset(("deliverychargespecification", "paymentchargespecification"))
CONDITIONS = ("validformembertier", "billingincrement", "eligibletransactionvolume")
"""Properties of a price that not every buyer of one piece pays."""
PIECES = ("C62", "EA", "H87", "PCE")
"""Codes of units that are pieces."""
AMOUNTS = (
    "@value", "value", "amount", "price", "saleprice", "salesprice", "sales", "sale", "current", "currentprice",
    "final", "finalprice", "now", "special", "specialprice", "discounted", "lowprice", "minprice", "min", "minvalue",
)  # fmt: skip
"""Names under which an object in the place of a number holds it, the first before the next."""
CURRENCY_NAMES = ("pricecurrency", "currency", "currencycode", "currencyiso", "isocode")
OTHER_AMOUNTS = re.compile(r"list|regular|original|strike|was|old|former|base|msrp|rrp|max|high|unit|tax|shipping|type")
"""Names under which it holds other numbers."""
MAX_ITEMS = 50
"""Largest number of items inside such an object that are read."""
NUMBERS = (
    "sku", "productid", "identifier", "mpn", "gtin", "gtin8", "gtin12", "gtin13", "gtin14", "isbn", "serialnumber",
    "inproductgroupwithid",
)  # fmt: skip
OPTIONS = ("color", "size", "material", "pattern", "name")
"""Properties that tell one variant from another."""


def parse_availability(text: str) -> str | None:
    """Return schema.org's name of an availability: `http://schema.org/InStock`, `in stock` -> `InStock`."""
    name = re.split(r"[/#]", text.strip().rstrip("/"))[-1]
    return AVAILABILITIES.get(re.sub(r"[\W_]", "", name).lower())


NAMED = 10
"""Points of an offer for each part of the page's address that is its own."""


@dataclass(frozen=True)
class Offer:
    """What one offer says; a value that it does not give is None.

    Attributes:
        price: At least 0.
        currency: ISO 4217.
        availability: schema.org's name.
        sources: The items that say it: the offer itself, what it offers, and the variant that it belongs to.
    """

    price: float | None = None
    currency: str | None = None
    availability: str | None = None
    sources: tuple[Item, ...] = ()


def offers_of(product: Item, *owners: Item) -> list[Offer]:
    """Return the offers of a product, each alone; of one without any, an empty offer.

    Args:
        product: The product or variant.
        owners: Items that the offers belong to, for their `sources`.
    """
    offers = [_offer(item, owners, holder) for item, holder in islice(_offer_items(product), MAX_OFFERS)]
    if not any(offer.price is not None for offer in offers):
        own = _offer(product, (), None)
        if own.price is not None or (own.availability and not offers):
            offers.insert(0, replace(own, sources=owners))
    return offers or [Offer(sources=owners)]


def states_availability(product: Item) -> bool:
    """Return whether a product or an offer of it states an availability, also in words that are not known."""
    holders = product.items("offers", "offer", "offerdetails")
    items = (product, *holders, *(inner for holder in holders for inner in holder.items("offers")))
    return any(_texts(islice(items, MAX_OFFERS), "availability"))


def _offer_items(product: Item) -> Iterator[tuple[Item, Item | None]]:
    """Yield the offers of a product, each with the AggregateOffer that holds it."""
    for item in product.items("offers", "offer", "offerdetails"):
        inner = item.items("offers")
        if any(_offer(one, (), item).price is not None for one in inner[:MAX_OFFERS]):
            yield from ((one, item) for one in inner)
        else:
            yield item, None


def _offer(item: Item, owners: tuple[Item, ...], holder: Item | None) -> Offer:
    specifications = [spec for spec in item.items("pricespecification") if _is_asked(spec)]
    on_sale = [spec for spec in specifications if "saleprice" in (spec.text("pricetype") or "").lower()]
    sources = [*on_sale, item, *(spec for spec in specifications if spec not in on_sale)]
    outer = [holder] if holder else []
    currency = _first(map(parse_currency, _texts([*sources, *outer], *CURRENCY_NAMES)))
    price = None
    for source in (*on_sale, item, None):
        entries = [source] if source else sources[len(on_sale) + 1 :]
        texts = [text for entry in entries for text in _amounts(entry)]
        currency = currency or _first(map(parse_currency, texts))
        prices = [found for text in texts if (found := parse_price(text, currency=currency)) is not None]
        # Of several specifications the lowest is asked: the price of a sale.
        price = prices[0] if source and prices else min((p for p in prices if p), default=min(prices, default=None))
        if price is not None:
            break
    states = _texts([item, *item.items("offers"), *outer], "availability")
    return Offer(
        price, currency, best_availability(map(parse_availability, states)), (item, *item.items("itemoffered"), *owners)
    )


def _is_asked(specification: Item) -> bool:
    """Return whether this is a price that every buyer of one piece pays now, not a former one or that of a unit."""
    if FORMER_PRICES.search(specification.text("pricetype") or "") or specification.types & OTHER_SPECIFICATIONS:
        return False
    if specification.values(*CONDITIONS):
        return False
    least = [quantity.text("minvalue", "value") or "1" for quantity in specification.items("eligiblequantity")]
    units = specification.items("referencequantity")
    pieces = all((unit.text("unitcode") or "C62").upper() in PIECES for unit in units)
    return pieces and all(parse_price(text) == 1 for text in (*least, *(unit.text("value") or "1" for unit in units)))


def _amounts(item: Item) -> Iterator[str]:
    """Yield the texts that stand for an item's price, also those in objects in the place of a number."""
    for name in ("price", "saleprice", "lowprice", "minprice"):
        for value in item.values(name):
            if isinstance(value, str):
                yield value
            else:
                yield from _inside(value, AMOUNTS)


def _inside(value: Item, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the texts of properties of these names in an object and the objects in it, the outer before the inner."""
    waiting, seen = [value], 0
    while waiting and seen < MAX_ITEMS:
        item = waiting.pop(0)
        seen += 1
        for name in names:
            yield from (text for text in item.properties.get(name, ()) if isinstance(text, str))
        # In the order of the names: a sale's price before any other.
        others = sorted(item.properties, key=lambda name: names.index(name) if name in names else len(names))
        for name in others:
            if not OTHER_AMOUNTS.search(name):
                waiting += [inner for inner in item.properties[name] if isinstance(inner, Item)]


def _texts(items: Iterable[Item], *names: str) -> Iterator[str]:
    """Yield the texts of the items' properties, of objects in their place, and of currencies those in their prices."""
    items = list(items)
    for name in names:
        for item in items:
            for value in item.values(name):
                text = value.text("@value", "name", "@id") if isinstance(value, Item) else value
                if text:
                    yield text
    if names == CURRENCY_NAMES:
        for item in items:
            for value in (*item.items("price"), *item.items("lowprice"), *item.items("minprice")):
                yield from _inside(value, CURRENCY_NAMES)


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def choose_offer(offers: list[Offer], named: list[Offer], price: float | None = None) -> Offer:
    """Return one offer of several: the one that the page's address names, else what can be had before what is cheap.

    Shops write a former price and the present one as two offers, and sizes as many. A price of 0 counts
    only if there is no other, and another currency than the first only if nothing in that can be had.
    What the chosen offer leaves out is taken from the others if all that give it agree.

    Args:
        offers: At least one.
        named: Those among them that the page's address names, perhaps none.
        price: The price that is known from elsewhere; an offer with it goes before others.
    """
    currency = _first(offer.currency for offer in offers)

    def rank(offer: Offer) -> tuple[bool, bool, int, bool, bool, float]:
        stock = 0 if offer.availability in TO_BE_HAD else 2 if offer.availability in GONE else 1
        foreign = offer.currency not in (currency, None)
        return (
            price is not None and offer.price != price,
            offer.price is None,
            stock,
            foreign,
            not offer.price,
            offer.price or 0,
        )

    chosen = min(named or offers, key=rank)
    currencies = {offer.currency for offer in offers if offer.currency}
    states = {offer.availability for offer in offers if offer.availability}
    return replace(
        chosen,
        currency=chosen.currency or (currencies.pop() if len(currencies) == 1 else None),
        availability=chosen.availability or (states.pop() if len(states) == 1 else None),
    )


def named_offers(offers: list[Offer], url: str) -> list[Offer]:
    """Return the offers that an address names and no others: by their own address, number, size or colour."""
    addresses = [_first(source.text("url") for source in offer.sources) for offer in offers]
    scores = [_address_score(address or "", url) for address in addresses]
    # The page's own address without parameters names an offer only if each offer has an address.
    if max(scores) != min(scores) and (max(scores) >= NAMED or all(addresses)):
        return [offer for offer, score in zip(offers, scores, strict=True) if score == max(scores)]
    words = _words_of(url)
    scores = [_word_score(offer, *words) for offer in offers]
    if max(scores) != min(scores):
        return [offer for offer, score in zip(offers, scores, strict=True) if score == max(scores)]
    return []


def _address_score(address: str, url: str) -> int:
    """Return how well an offer's address fits the page's: 0 for another page or variant, `NAMED` for the same."""
    try:
        offered, page = urlsplit(urljoin(url, address)), urlsplit(url)
    except ValueError:
        return 0
    asked, given = (dict(parse_qsl(parts.query, keep_blank_values=True)) for parts in (offered, page))
    same_path = unquote(offered.path).rstrip("/").lower() == unquote(page.path).rstrip("/").lower()
    differs = any(given.get(name, value) != value for name, value in asked.items())
    if not address or not same_path or differs or offered.fragment not in ("", page.fragment):
        return 0
    common = len(asked.keys() & given.keys()) + bool(offered.fragment)
    return 1 + (asked.keys() <= given.keys()) + NAMED * common


def _words_of(url: str) -> tuple[set[str], set[str]]:
    """Return the values that an address states, and the numbers in its path."""
    page = urlsplit(url)
    fragment = unquote(page.fragment)
    values = {letters(value) for _, value in parse_qsl(page.query)}
    values |= {letters(part) for sign in (r"[/=&,:;!]", r"[-_/=&,:;!]", "$") for part in re.split(sign, fragment)}
    numbers: set[str] = set()
    for part in page.path.rstrip("/").split("/")[-3:]:
        words = re.split(r"[-_]", re.sub(r"\.[a-z]{1,5}$", "", unquote(part)))[:20]
        places = range(len(words))
        numbers |= {letters("".join(words[start : end + 1])) for start in places for end in places[start:]}
    values.add(letters(page.path.rpartition("/")[2]))
    return values - {""}, {number for number in numbers if len(number) >= 2}


def _word_score(offer: Offer, values: set[str], numbers: set[str]) -> int:
    """Return how much of an address an offer's numbers and options are; a number counts more."""
    words = {letters(text) for source in offer.sources for name in NUMBERS if (text := source.text(name))}
    keys = (source.text("@id") or "" for source in offer.sources)
    words |= {letters(part) for key in keys for part in re.split(r"[/#=&?]", key)}
    options = {letters(text) for source in offer.sources for name in OPTIONS if (text := source.text(name))}
    return NAMED * len((words - {""}) & (values | numbers)) + len(options & values)


def best_availability(states: Iterable[str | None]) -> str | None:
    """Return the first state in which something can be had, else the first."""
    known = [state for state in states if state]
    return next((state for state in known if state in TO_BE_HAD), known[0] if known else None)
