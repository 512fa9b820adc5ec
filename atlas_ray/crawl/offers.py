"""What a product costs and whether it can be had: offers and availabilities as shops write them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from atlas_ray.crawl.structured import Item
from atlas_ray.prices import parse_currency, parse_price

T = TypeVar("T")
MAX_OFFERS = 500
"""Offers of a product that are looked at."""
AVAILABILITIES = {
    name.lower(): name
    for name in (
        "BackOrder", "Discontinued", "InStock", "InStoreOnly", "LimitedAvailability", "MadeToOrder",
        "OnlineOnly", "OutOfStock", "PreOrder", "PreSale", "Reserved", "SoldOut",
    )
} | {"available": "InStock", "oos": "OutOfStock", "availableforbackorder": "BackOrder"}  # fmt: skip
TO_BE_HAD = ("InStock", "LimitedAvailability", "OnlineOnly", "InStoreOnly")
FORMER_PRICES = re.compile("listprice|strikethrough|msrp|srp", re.IGNORECASE)


def parse_availability(text: str) -> str | None:
    """Return schema.org's name of an availability: `http://schema.org/InStock`, `in stock` -> `InStock`."""
    name = re.split(r"[/#]", text.strip().rstrip("/"))[-1]
    return AVAILABILITIES.get(re.sub(r"[\W_]", "", name).lower())


@dataclass(frozen=True)
class Offer:
    """What one offer says; a value that it does not give is None."""

    price: float | None = None
    currency: str | None = None
    availability: str | None = None
    url: str | None = None


def offers_of(product: Item) -> list[Offer]:
    """Return the offers of a product, and of its variants where it is a group without any."""
    found = [_offer(item) for item in islice(_offer_items(product), MAX_OFFERS)]
    if product.text("price", "lowprice"):
        found.append(_offer(product))
    return found


def states_availability(product: Item) -> bool:
    """Tell whether a product or an offer of it states an availability, also in words that are not known."""
    holders = product.items("offers", "offer", "offerdetails")
    items = (product, *holders, *(inner for holder in holders for inner in holder.items("offers")))
    return any(_texts(islice(items, MAX_OFFERS), "availability"))


def _offer_items(product: Item) -> Iterator[Item]:
    for item in product.items("offers", "offer", "offerdetails"):
        inner = item.items("offers")
        # Without a price of its own it only holds the offers: an AggregateOffer, or an Offer written twice.
        yield from inner if inner and not item.text("price", "lowprice") else [item]


def _offer(item: Item) -> Offer:
    sources = [item, *_current(item.items("pricespecification"))]
    return Offer(
        price=_first(parse_price(text) for text in _texts(sources, "price", "lowprice", "minprice")),
        currency=_first(parse_currency(text) for text in _texts(sources, "pricecurrency", "currency", "price")),
        availability=best_availability(
            parse_availability(text) for text in _texts([item, *item.items("offers")], "availability")
        ),
        url=item.text("url", "@id"),
    )


def _current(specifications: Iterable[Item]) -> list[Item]:
    """Return the prices that are asked now, not a former price or that of a unit of measure."""
    return [
        item
        for item in specifications
        if not FORMER_PRICES.search(item.text("pricetype") or "") and not item.items("referencequantity")
    ]


def _texts(items: Iterable[Item], *names: str) -> Iterator[str]:
    items = list(items)
    for name in names:
        for item in items:
            for value in item.values(name):
                text = value.text("@value", "name", "@id") if isinstance(value, Item) else value
                if text:
                    yield text


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def best_offer(offers: Iterable[Offer]) -> Offer:
    """Return one offer for several: the lowest price of the first currency, and `InStock` where any is.

    Shops write a former price and the present one as two offers, and sizes as many. A price of 0
    counts only where there is no other.
    """
    offers = list(offers)
    currency = _first(offer.currency for offer in offers)
    prices = [offer.price for offer in offers if offer.price is not None and offer.currency in (currency, None)]
    return Offer(
        price=min((price for price in prices if price), default=min(prices, default=None)),
        currency=currency,
        availability=best_availability(offer.availability for offer in offers),
    )


def best_availability(states: Iterable[str | None]) -> str | None:
    """Return the first state in which something can be had, else the first."""
    known = [state for state in states if state]
    return next((state for state in known if state in TO_BE_HAD), known[0] if known else None)
