from typing import Any

import pytest

from tests.extraction.pages import PRODUCT, URL, page_of, product

IN, OUT = "https://schema.org/InStock", "https://schema.org/OutOfStock"
BARE = {name: value for name, value in PRODUCT.items() if name not in ("sku", "offers")}
TITLE = "<title>Executive &amp; Anvil</title>"


def offer(sku: str, price: object, availability: str = IN, **more: object) -> dict[str, Any]:
    return {"sku": sku, "price": price, "priceCurrency": "EUR", "availability": availability, **more}


def read(data: dict[str, Any], url: str = URL, head: str = TITLE) -> tuple[object, ...]:
    found = product(page_of({**BARE, **data}, url=url, head=head))
    return found.sku, found.price, found.currency, found.availability


SIZES = [offer("A-S", 10, OUT), offer("A-M", 14), offer("A-L", 12), offer("A-XL", 11, OUT)]
VARIANTS = [{"@type": "Product", "name": entry["sku"], "sku": entry.pop("sku"), "size": size, "offers": entry,
             "url": f"{URL}?variant={number}"}
            for number, (size, entry) in enumerate(zip("SML", map(dict, SIZES), strict=False), 1)]  # fmt: skip
GROUP = {"@type": "ProductGroup", "productGroupID": "A", "hasVariant": VARIANTS}


@pytest.mark.parametrize(
    "data",
    [
        {"offers": SIZES},
        {"offers": SIZES[::-1]},
        {"offers": {"@type": "AggregateOffer", "lowPrice": 10, "highPrice": 14, "offers": SIZES}},
        {"offers": [{"@type": "AggregateOffer", "availability": OUT, "offers": SIZES}]},
        {"sku": "A-S", "offers": SIZES},  # of another size
        {"offers": [{**entry, "sku": None, "itemOffered": {"sku": entry["sku"]}} for entry in SIZES]},
        {"offers": [*SIZES, offer("A-XXL", 0)]},
        {"offers": [*SIZES, offer("A-US", 9, priceCurrency="USD")]},
        {"offers": [*SIZES, offer("A-PRE", 9, "https://schema.org/PreOrder")]},
        GROUP,
        {**GROUP, "sku": "A", "offers": {"@type": "AggregateOffer", "lowPrice": 10, "priceCurrency": "EUR"}},
    ],
)  # fmt: skip
def test_all_values_are_those_of_the_cheapest_offer_that_can_be_had(data: dict[str, Any]) -> None:
    assert read(data) == ("A-L", 12, "EUR", "InStock")


@pytest.mark.parametrize(
    ("address", "offers"),
    [
        ("?sku=A-S", SIZES),
        ("#A-S", SIZES),
        ("#sku=A-S", SIZES),
        ("#/size/A-S", SIZES),
        ("-A-S", SIZES),
        ("/A-S", SIZES),
        ("-A-S.html", SIZES),
        ("?variant=41&utm_source=x", [{**entry, "url": f"{URL}?variant={41 + n}"} for n, entry in enumerate(SIZES)]),
        ("?variant=41", [{**entry, "@id": f"/p?variant={41 + n}#offer"} for n, entry in enumerate(SIZES)]),
        ("#s", [{**entry, "url": f"/p/anvil#{'sml'[n]}"} for n, entry in enumerate(SIZES[:3])]),
        ("?gtin=4006381333931", [{**SIZES[0], "gtin13": "4006381333931"}, *SIZES[1:]]),
        ("/s", [{**entry, "url": f"/p/anvil/{'sml'[n]}"} for n, entry in enumerate(SIZES[:3])]),
    ],
)  # fmt: skip
def test_the_address_names_an_offer(address: str, offers: list[dict[str, Any]]) -> None:
    assert read({"offers": offers}, URL + address) == ("A-S", 10, "EUR", "OutOfStock")
    assert read({"offers": offers[::-1], "sku": "A"}, URL + address) == ("A-S", 10, "EUR", "OutOfStock")


@pytest.mark.parametrize("address", ["?variant=2", "?size=M", "?sku=A-M&utm=1", "#A-M", "/A-M"])
def test_the_address_names_a_variant(address: str) -> None:
    canonical = f'{TITLE}<link rel="canonical" href="{URL}">'
    assert read(GROUP, URL + address, canonical) == ("A-M", 14, "EUR", "InStock")


@pytest.mark.parametrize("address", ["", "?utm_source=a-b", "?page=1", "#reviews", "#"])
def test_an_address_that_names_none(address: str) -> None:
    assert read(GROUP, URL + address) == ("A-L", 12, "EUR", "InStock")


def test_the_number_of_the_product_stands_for_its_sizes() -> None:
    assert read({"sku": "A", "offers": SIZES}) == ("A", 12, "EUR", "InStock")
    assert read({"sku": "4711", "offers": SIZES[:1]}) == ("A-S", 10, "EUR", "OutOfStock")


def test_only_what_is_sold_out() -> None:
    assert read({"offers": [offer("A", 12, OUT), offer("B", 10, OUT)]}) == ("B", 10, "EUR", "OutOfStock")


def test_what_an_offer_leaves_out_is_taken_from_others_that_agree() -> None:
    bare = {"sku": "A", "price": 5}
    assert read({"offers": [bare, offer("B", 10)]}) == ("B", 10, "EUR", "InStock")
    assert read({"offers": [bare, offer("B", 10, OUT)]}) == ("A", 5, "EUR", "OutOfStock")
    assert read({"offers": [bare, offer("B", 9, OUT), offer("C", 9, OUT, priceCurrency="USD")]})[1:3] == (5, None)


def test_one_syntax_does_not_lend_the_stock_of_another_size() -> None:
    tags = "".join(
        f'<div itemprop="offers" itemscope itemtype="http://schema.org/Offer"><meta itemprop="price" content="{price}">'
        f'<link itemprop="availability" href="{state}"></div>'
        for price, state in ((10, OUT), (12, IN))
    )
    name = '<h1 itemprop="name">Executive &amp; Anvil</h1>'
    body = f'<div itemscope itemtype="http://schema.org/Product">{name}{tags}</div>'
    found = product(page_of({**BARE, "offers": {"price": 10, "priceCurrency": "EUR"}}, body=body))
    assert (found.price, found.availability) == (10, "OutOfStock")


def price_of(value: object, **more: object) -> tuple[object, object]:
    found = product(page_of({**BARE, "offers": {"@type": "AggregateOffer", **more, "lowprice": value}}))
    return found.price, found.currency


@pytest.mark.parametrize(
    "value",
    [
        {"sales": {"value": 10, "currency": "ARS"}},
        {"list": {"value": 20, "currency": "ARS"}, "sales": {"value": 10, "currency": "ARS"}},
        {"type": "range", "max": {"sales": {"value": 30}}, "min": {"sales": {"value": 10, "currency": "ARS"}}},
        {"@type": "MonetaryAmount", "value": "10.00", "currency": "ARS"},
        {"amount": 10, "currencyCode": "ARS"},
        {"@type": "PriceSpecification", "price": "10", "priceCurrency": "ARS"},
        {"@value": "10 ARS"},
        [{"regularPrice": 12, "finalPrice": 10, "currency": "ARS"}],
    ],
)
def test_an_object_in_the_place_of_a_number(value: object) -> None:
    assert price_of(value) == (10, "ARS")


def test_an_object_without_a_currency() -> None:
    assert price_of({"sales": {"value": 10}}, priceCurrency="ARS") == (10, "ARS")
    assert price_of({"list": {"value": 10, "currency": "ARS"}})[0] is None


LIST = {"price": 200, "priceType": "https://schema.org/ListPrice"}
CROSSED = {"price": 200, "priceType": "https://schema.org/StrikethroughPrice"}
SALE = {"price": 150, "priceType": "https://schema.org/SalePrice"}


@pytest.mark.parametrize(
    ("price", "specification", "right"),
    [
        (None, [LIST, SALE], 150),
        (None, [SALE, CROSSED], 150),
        (200, [LIST, SALE], 150),
        (150, CROSSED, 150),
        (None, [{"price": 200}, {"price": 150}], 150),
        (None, [{"price": 150}, {"price": 3, "referenceQuantity": {"value": 100, "unitCode": "GRM"}}], 150),
        (None, [{"price": 150}, {"price": 120, "validForMemberTier": {"name": "gold"}}], 150),
        (None, [{"price": 150}, {"price": 120, "eligibleQuantity": {"minValue": 10}}], 150),
        (None, [{"price": 150}, {"price": 5, "@type": "DeliveryChargeSpecification"}], 150),
        (None, {"price": {"value": 150}}, 150),
        (
            None,
            {"price": 150, "referenceQuantity": {"value": 1, "unitCode": "C62"}, "eligibleQuantity": {"value": 1}},
            150,
        ),
        (None, {"price": 150, "referenceQuantity": {"value": 1, "unitCode": "KGM"}}, None),
        (None, [LIST], None),
    ],
)
def test_price_specifications(price: object, specification: object, right: float | None) -> None:
    entry = {"price": price, "priceCurrency": "EUR", "priceSpecification": specification}
    assert product(page_of({**BARE, "offers": entry})).price == right


def test_a_currency_with_three_decimals() -> None:
    assert read({"offers": offer("A", "3.350", priceCurrency="KWD")})[1:3] == (3.35, "KWD")
    assert read({"offers": offer("A", "1,250.500", priceCurrency="BHD")})[1:3] == (1250.5, "BHD")
    assert read({"offers": offer("A", "OMR 3.350", priceCurrency=None)})[1:3] == (3.35, "OMR")
    assert read({"offers": offer("A", "3.350 TND", priceCurrency="TND")})[1:3] == (3.35, "TND")


def test_the_number_is_that_of_the_product_which_the_chosen_offer_is_for() -> None:
    offers = [
        {"price": 5, "priceCurrency": "EUR", "availability": OUT, "itemOffered": {"@type": "Product", "sku": "P1"}},
        {"price": 8, "priceCurrency": "EUR", "availability": IN, "itemOffered": {"@type": "Product", "sku": "P2"}},
    ]
    assert read({"sku": "P", "offers": offers}) == ("P2", 8, "EUR", "InStock")


def test_a_number_that_json_holds_as_a_decimal_is_whole() -> None:
    assert read({"sku": 123.0, "offers": offer("", 5)})[0] == "123"
