import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_ray.crawl.links import in_domains, next_page, product_links
from atlas_ray.crawl.store import StartUrl, Store
from atlas_ray.extraction.extract import Extracted, NotAProduct, extract
from atlas_ray.extraction.offers import parse_availability
from atlas_ray.extraction.page import Page
from atlas_ray.formats.prices import parse_currency, parse_price
from tests.extraction.pages import OFFER, PRODUCT, STORE, URL, page_of, product
from tests.support.saved_pages import measure

NEXT_TO_IT = {"@type": "Product", "name": "Travel Anvil", "url": "/p/travel", "offers": {"price": 5}}


def test_json_ld() -> None:
    assert product(page_of(PRODUCT)) == Extracted(
        url=URL,
        title="Executive & Anvil",
        description="Sleek, heavy",
        price=119.99,
        currency="USD",
        brand="ACME",
        sku="925872",
        availability="InStock",
        breadcrumb=(),
        image_urls=("https://www.shop.example/a.jpg", "https://cdn.example/b.jpg"),
        origins=dict.fromkeys(
            ("title", "description", "price", "currency", "brand", "sku", "availability", "image_urls"), "json-ld"
        ),
    )


TEXT = json.dumps(PRODUCT)


@pytest.mark.parametrize(
    "blocks",
    [
        (TEXT.replace(r"\n", "\n"),),  # a raw line break inside a text
        ("//<![CDATA[\n" + TEXT + "\n//]]>",),
        ("/*<![CDATA[*/" + TEXT + "/*]]>*/",),
        ("<!-- " + TEXT + " -->",),
        ("<!-- the product -->\n" + TEXT,),
        (TEXT.replace('"brand"', '// who\n "brand"').replace("}}", "},}"),),
        (TEXT + ";",),
        ('{"@type": "WebSite"}\n' + TEXT,),
        (TEXT.replace('"', "&quot;"),),
        ("{not json", TEXT),
        ("[" * 100_000, [PRODUCT]),
        ({"@graph": [{"@id": "#o", **OFFER}, {**PRODUCT, "offers": {"@id": "#o"}}, {"@type": "WebSite"}]},),
        ({"@type": "WebPage", "mainEntity": PRODUCT},),
        ({**PRODUCT, "@type": "http://schema.org/product"},),
        ({**PRODUCT, "@type": ["schema:Thing", "schema:Product"], "offers": [{"@type": "Demand"}, OFFER]},),
        ({**PRODUCT, "offers": {**OFFER, "@type": "AggregateOffer", "price": None, "lowPrice": "119,99"}},),
        ({**PRODUCT, "offers": [{**OFFER, "price": 150}, OFFER]},),  # what it was, and what it is
        ({**PRODUCT, "offers": {**OFFER, "price": None, "priceSpecification": [
            {"price": 200, "priceType": "https://schema.org/ListPrice"}, {"price": 119.99}]}},),
        ({**PRODUCT, "@type": "ProductGroup", "offers": None, "hasVariant": [
            {"@type": "Product", "name": "red", "url": "/p/anvil?c=red", "offers": {"price": 1}},
            {"@type": "Product", "name": "blue", "url": URL, "offers": OFFER}]},),
        (PRODUCT, {**NEXT_TO_IT, "@type": "Product", "isRelatedTo": PRODUCT}),
        ({**PRODUCT, "isRelatedTo": [NEXT_TO_IT], "isSimilarTo": NEXT_TO_IT},),
    ],
)  # fmt: skip
def test_json_ld_as_it_is_found(blocks: tuple[object, ...]) -> None:
    found = product(page_of(*blocks, head="<title>Executive &amp; Anvil | Shop</title>"))
    assert (found.title, found.price, found.currency) == ("Executive & Anvil", 119.99, "USD")
    assert (found.brand, found.sku, found.availability) == ("ACME", "925872", "InStock")


MICRODATA = """<div itemscope itemtype="http://schema.org/Product"><h1 itemprop="name">Executive Anvil</h1>
<span itemprop="brand">ACME</span><img itemprop="image" src=" a.jpg
"><div itemprop="offers" itemscope itemtype="https://schema.org/Offer">$<span itemprop="price">1,119.99</span>
<meta itemprop="priceCurrency" content="usd"><link itemprop="availability" href="http://schema.org/OutOfStock"></div>
<div itemprop="isRelatedTo" itemscope itemtype="http://schema.org/Product"><b itemprop="name">Hammer</b></div></div>"""
RDFA = """<div vocab="http://schema.org/" typeof="Product"><h1 property="name">Executive Anvil</h1>
<span property="brand">ACME</span><img property="image" src="a.jpg"><div property="offers" typeof="Offer">
<meta property="price" content="1119.99"><meta property="priceCurrency" content="USD">
<link property="availability" href="http://schema.org/OutOfStock"></div></div>
<ol vocab="http://schema.org/" typeof="BreadcrumbList"><li property="itemListElement" typeof="ListItem">
<a property="item" typeof="WebPage" href="/"><span property="name">Home</span></a><meta property="position" content="1">
</li><li property="itemListElement" typeof="ListItem"><a property="item" typeof="WebPage" href="/tools">
<span property="name">Tools</span></a><meta property="position" content="2"></li></ol>"""
OPEN_GRAPH = """<meta property="og:type" content="product"><meta property="og:title" content="Executive Anvil">
<meta property="product:brand" content="ACME"><meta name="og:image" content="/p/a.jpg">
<meta property="product:price:amount" content="1119.99"><meta property="product:price:currency" content="USD">
<meta property="product:availability" content="out of stock">"""


@pytest.mark.parametrize(
    ("page", "origin", "breadcrumb"),
    [
        (page_of(body=MICRODATA), "microdata", ()),
        (page_of(body=RDFA), "rdfa", ("Tools",)),
        (page_of(head=OPEN_GRAPH), "opengraph", ()),
    ],
)
def test_other_syntaxes(page: Page, origin: str, breadcrumb: tuple[str, ...]) -> None:
    found = product(page)
    assert (found.title, found.brand, found.price, found.currency) == ("Executive Anvil", "ACME", 1119.99, "USD")
    assert (found.availability, found.breadcrumb) == ("OutOfStock", breadcrumb)
    assert found.image_urls == ("https://www.shop.example/p/a.jpg",)
    assert set(found.origins.values()) == {origin}


def test_a_selected_breadcrumb_is_tidied_as_any_other() -> None:
    trail = "".join(f"<li class=step>{name}</li>" for name in ("Home", "Women", "Sarees", "Red saree"))
    store = Store(**vars(STORE) | {"fields": {"title": "h1", "price": "b", "breadcrumb": ".step"}})
    found = extract(Page(url=URL, body=f"<h1>Red saree</h1><b>5 €</b><ul>{trail}</ul>".encode()), store.fields)
    assert isinstance(found, Extracted)
    assert (found.breadcrumb, found.origins["breadcrumb"]) == (("Women", "Sarees"), "selector")


def test_the_front_page_is_no_picture() -> None:
    found = product(page_of(PRODUCT | {"image": ["/", "https://cdn.example", "https://cdn.example?img=2", "/1.jpg"]}))
    assert found.image_urls == ("https://cdn.example?img=2", "https://www.shop.example/1.jpg")


def test_a_long_listing_is_read_to_its_end() -> None:
    links = "".join(f'<a class=tile href="/p/{number}">{number}</a>' for number in range(2500))
    store = Store(**vars(STORE) | {"product_links": ".tile"})
    assert len(product_links(Page(url=URL, body=links.encode()), store)) == 2500


def test_a_shop_with_a_name_beyond_ascii_is_its_own() -> None:
    store = Store(name="m", start_urls=(StartUrl("https://www.münchen-moden.de/damen"),), product_links="a")
    page = Page(url="https://www.xn--mnchen-moden-dlb.de/damen", body=b'<a href="/p/1">1</a>')
    assert product_links(page, store) == ["https://www.xn--mnchen-moden-dlb.de/p/1"]
    assert in_domains("https://shop.münchen-moden.de/", store.allowed_domains)
    assert in_domains("https://shop.münchen-moden.de/", ("münchen-moden.de",))
    assert not in_domains("https://moden.de/", store.allowed_domains)


def test_selectors_win_and_origins_tell() -> None:
    fields = {
        "title": "h1",
        "price": ".now::text",
        "breadcrumb": ".path a",
        "image_urls": "img.big",
        "sku": "b::attr(data-id)",
        "brand": ".missing",
    }
    store = Store(name="shop", start_urls=STORE.start_urls, fields=fields)
    body = """<h1>Anvil <i>XL</i></h1><p class=now>Now 1.299 €</p><p class=path><a>Tools</a> / <a>Anvils</a></p>
    <img class=big data-src=/big.jpg src=/dot.gif><b data-id=77>"""
    found = product(page_of(PRODUCT, body=body), store)
    assert (found.title, found.price, found.currency, found.sku) == ("Anvil XL", 1299, "EUR", "77")
    assert (found.breadcrumb, found.image_urls) == (("Tools", "Anvils"), ("https://www.shop.example/big.jpg",))
    assert found.brand == "ACME"
    assert {name for name, origin in found.origins.items() if origin == "selector"} == {
        "title", "price", "currency", "sku", "breadcrumb", "image_urls",
    }  # fmt: skip
    assert product(Page(URL, body.encode()), store).price == 1299  # without structured data


def crumbs(*names: str) -> dict[str, Any]:
    items = [{"position": n, "item": {"@id": f"/{n}", "name": name}} for n, name in enumerate(names)]
    return {"@type": "BreadcrumbList", "itemListElement": items[::-1]}


OLD = (
    '<p itemscope itemtype="http://data-vocabulary.org/Breadcrumb">'
    "<a itemprop=url href=/><b itemprop=title>{}</b></a></p>"
)
BREADCRUMBS = {
    '<nav aria-label="Breadcrumb"><ol><li><a>Home</a></li><li><a>Tools</a></li><li>Anvils</li></ol></nav>': "markup",
    '<ul class="c-breadcrumbs"><li><a>Tools</a><ul><li><a>Toys</a></li></ul></li><li>Anvils</li></ul>': "markup",
    '<div id="bread-crumb">You are here: <a>Home</a> » <a>Tools</a> » Anvils » Executive Anvil</div>': "markup",
    "<p><a>Shop</a> &gt; <a>Tools</a> › <a>Anvils</a></p>": "markup",
    '<div class="crumbs"><a>Start</a><i>/</i><a>Tools</a><i>/</i><a>Anvils</a></div>': "markup",
    OLD.format("Tools") + OLD.format("Anvils"): "microdata",
}


@pytest.mark.parametrize(("body", "origin"), BREADCRUMBS.items())
def test_breadcrumbs(body: str, origin: str) -> None:
    found = product(page_of({**PRODUCT, "name": "Executive Anvil"}, body=body))
    assert (found.breadcrumb, found.origins["breadcrumb"]) == (("Tools", "Anvils"), origin)


def test_breadcrumbs_in_json_ld_are_put_in_order() -> None:
    found = product(page_of(PRODUCT, crumbs("Home", "Tools", "Anvils", "Executive & Anvil")))
    assert (found.breadcrumb, found.origins["breadcrumb"]) == (("Tools", "Anvils"), "json-ld")


TILE = """<div itemscope itemtype="http://schema.org/Product"><a itemprop=url href="/p/{0}">
<b itemprop=name>No. {0}</b></a><i itemprop=offers itemscope itemtype="http://schema.org/Offer">
<b itemprop=price>{0}</b></i></div>"""
LISTED = {"@type": "ItemList", "itemListElement": [{"@type": "ListItem", "item": PRODUCT}]}
ARTICLE = {"@type": "NewsArticle", "headline": "Anvils fall"}


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (page_of(body="".join(TILE.format(n) for n in range(1, 9)), url=URL + "s"), "several_products"),
        (page_of(LISTED), "several_products"),
        (page_of(NEXT_TO_IT), "other_product"),
        (page_of(ARTICLE, {**PRODUCT, "name": "Hammer"}), "article"),
        (page_of(ARTICLE), "no_product_data"),
        (page_of({"@type": "Product", "name": "Shop", "aggregateRating": {"ratingValue": 5}}), "no_product_data"),
        (page_of({**PRODUCT, "name": None}), "no_title"),
        (page_of(head=OPEN_GRAPH.replace('content="product"', 'content="website"')), "no_product_data"),
        (Page(URL, b" \n"), "empty_page"),
        (Page(URL, b"%PDF-1.7", "application/pdf"), "not_html"),
        (Page(URL, TEXT.encode(), "application/json"), "not_html"),
        (Page(URL, b"\x89PNG\r\n"), "not_html"),
    ],
)
def test_what_is_no_product(page: Page, reason: str) -> None:
    assert extract(page) == NotAProduct(reason)


NAMED_ONLY = {"@type": "Product", "name": "Executive Anvil"}
PICTURE = '<h1>Executive Anvil</h1><img itemprop="image" src="/i.jpg">'


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ({**PRODUCT, "image": [None]}, PICTURE),
        ({**NAMED_ONLY, "image": [None]}, PICTURE),
        ({**NAMED_ONLY, "image": None}, PICTURE),
        ({**NAMED_ONLY, "image": ["", {}]}, PICTURE.replace("src", "data-src")),
        ({**NAMED_ONLY, "image": []}, '<h1>Executive Anvil</h1><link itemprop="image" href="/i.jpg">'),
        ({**NAMED_ONLY}, '<h1>Executive Anvil</h1><meta itemprop="image" content="/i.jpg">'),
    ],
)
def test_a_picture_outside_of_the_data(data: dict[str, Any], body: str) -> None:
    found = product(page_of(data, body=body))
    assert (found.image_urls, found.origins["image_urls"]) == (("https://www.shop.example/i.jpg",), "microdata")


def test_a_picture_alone_makes_no_product_of_a_name_that_is_not_the_pages() -> None:
    page = page_of(NAMED_ONLY, body=PICTURE.replace("Executive Anvil", "All our hammers"))
    assert extract(page) == NotAProduct("no_product_data")
    other = '<div itemscope itemtype="http://schema.org/Person"><img itemprop="image" src="/me.jpg"></div>'
    assert extract(page_of(NAMED_ONLY, body=f"<h1>Executive Anvil</h1>{other}")) == NotAProduct("no_product_data")


@pytest.mark.parametrize(
    ("category", "names"),
    [
        ("Tools > Anvils", ("Tools", "Anvils")),
        ("Home &gt; Tools &gt; Anvils &gt; Executive &amp; Anvil", ("Tools", "Anvils")),
        ("Tools/Anvils", ("Tools", "Anvils")),
        ("Tools » Anvils »", ("Tools", "Anvils")),
        ("Tools | Anvils", ("Tools", "Anvils")),
        ("Tools -> Anvils", ("Tools", "Anvils")),
        (["Tools", "Anvils"], ("Tools", "Anvils")),
        (["1604", "Tools", "Tools > Anvils"], ("Tools", "Anvils")),
        ({"@type": "Thing", "name": "Tools > Anvils"}, ("Tools", "Anvils")),
        ([{"@type": "CategoryCode", "codeValue": "12", "name": "Tools / Anvils"}], ("Tools", "Anvils")),
        ("Men/Women > Anvils", ("Men/Women", "Anvils")),
        ("Anvils", ("Anvils",)),
        ("1604", ()),
        (1604, ()),
        ("https://shop.example/c/1604", ()),
        (None, ()),
    ],
)
def test_the_category_of_a_product_without_a_breadcrumb(category: object, names: tuple[str, ...]) -> None:
    found = product(page_of({**PRODUCT, "category": category}))
    assert (found.breadcrumb, found.origins.get("breadcrumb")) == (names, "json-ld" if names else None)
    with_trail = product(page_of({**PRODUCT, "category": category}, crumbs("Home", "Iron", "Things")))
    assert with_trail.breadcrumb == ("Iron", "Things")


def test_not_a_number_is_no_text() -> None:
    data = json.dumps({**PRODUCT, "description": float("nan"), "brand": float("inf"), "sku": [float("nan")]})
    found = product(page_of(data))
    assert (found.title, found.description, found.brand, found.sku) == ("Executive & Anvil", None, None, None)


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("Sleek,", 'Sleek, 5" long,'),
        TEXT.replace("Sleek,", "The smith\\'s,"),
        TEXT.replace("Sleek,", 'The "sleek", the "fast",'),
        TEXT.replace("Sleek,", "Sleek,\t\x01"),
    ],
)
def test_a_stray_sign_does_not_cost_the_block(text: str) -> None:
    found = product(page_of(text))
    assert (found.title, found.price, found.sku, found.brand) == ("Executive & Anvil", 119.99, "925872", "ACME")


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("1299.00", 1299), ("1,299.00", 1299), ("1.299,00 €", 1299), ("Rs. 1,299", 1299), ("12,5", 12.5), ("0", 0),
        ("-5", None), ("-$5", None), ("1e999", None), ("inf", None), ("nan", None), ("9" * 400, None), ("", None),
        ("ask", None),
    ],
)  # fmt: skip
def test_prices(text: str, price: float | None) -> None:
    assert parse_price(text) == price


def test_a_price_that_a_person_wrote() -> None:
    assert [parse_price(text, by_machine=False) for text in ("1.299", "1.29", "24.990 ")] == [1299, 1.29, 24990]


@pytest.mark.parametrize(
    ("text", "code"),
    [("EUR", "EUR"), ("usd", "USD"), ("€ 5", "EUR"), ("zł", "PLN"), ("₹1,299", "INR"), ("Lei", "RON"), ("$", None),
     ("XXX", None), ("EUR 5", "EUR"), ("5USD", "USD"), ("Currency: GBP", "GBP"), ("All sizes £10", "GBP"),
     ("Try it for £10", "GBP"), ("TOP OFFER 19,99", None), ("19.99 per cup", None), ("Gel pen £2", "GBP")],
)  # fmt: skip
def test_currencies(text: str, code: str | None) -> None:
    assert parse_currency(text) == code


@pytest.mark.parametrize(
    ("text", "name"),
    [("http://schema.org/InStock", "InStock"), ("in_stock", "InStock"), ("Out of stock", "OutOfStock"),
     ("https://schema.org/PreOrder/", "PreOrder"), ("soon", None)],
)  # fmt: skip
def test_availabilities(text: str, name: str | None) -> None:
    assert parse_availability(text) == name


def hostile() -> Mapping[str, bytes]:
    deep_json = b'{"@type":"Product","name":"a","isRelatedTo":' * 900 + b"1" + b"}" * 900
    others = [{"@id": name} for name in "abcdef"]
    loop = {"@graph": [{**other, "@type": "Product", "name": "a", "model": others} for other in others]}
    numbers = {**PRODUCT, "offers": {"price": 10**400, "priceCurrency": ["\ud83d"]}, "sku": "\ud83d\0"}
    silent = page_of({**PRODUCT, "brand": None, "offers": {"price": 5}}).body
    objects = b"<script>" + b'{"brand":"' * 100_000 + b"a" * 500_000 + b"'brand':'" * 100_000 + b"</script>"
    buttons = (
        b"<h1>" * 60 + b'<a class="btn">' * 200 + b"add to cart " * 200_000 + b"<button>Add to cart</button>" * 9_000
    )
    microdata = b'<p itemscope itemtype="http://schema.org/Product"'
    return {
        "deep html": OPEN_GRAPH.encode() + b'<div class="breadcrumb">' * 200_000,
        "wide html": OPEN_GRAPH.encode() + b'<div class="breadcrumb">' * 200 + b"<b></b>" * 100_000,
        "deep json": b'<script type="application/ld+json">' + deep_json + b"</script>",
        "unclosed json": b'<script type="application/ld+json">' + b'{"a":' * 200_000 + b"</script>",
        "nested properties": microdata + b">" + b'<div itemprop="description">' * 200 + b"text " * 500_000,
        "item references": (microdata + b' itemref="a a a" id="a"><b itemprop=x>') * 2000,
        "references in a circle": page_of(loop).body,
        "deep rdfa": b'<div vocab="http://schema.org/" typeof="Product" property="model">' * 5000,
        "attributes": b"<a " + b"x=1 " * 200_000 + b">",
        "numbers": page_of(numbers).body,
        "objects": silent.replace(b"</body>", objects),
        "prices": silent.replace(b"5}", b"0}").replace(b"</body>", b'<p class="price">' * 300 + b"$ 5 " * 200_000),
        "controls": silent.replace(b"</body>", buttons),
        "lines": silent.replace(b"</body>", b"<div>SKU: <b>" * 200 + b"SKU: 1 " * 200_000 + b"<p>SKU: 1</p>" * 50_000),
        "addresses": b'<base href="http://["><link rel=canonical href="http://a:b/"><meta name="og:url" content="//[">',
        "dashes": page_of({**PRODUCT, "brand": "-" * 19_000 + "b"}, body="<p>Brand: x</p>" + "-" * 2_000_000).body,
        "badges": silent.replace(b"</body>", b"<a>" + b"<b>sold out</b><b>Add to cart</b>" * 100_000),
        "ones": silent.replace(b"</body>", (b"<b>a" + b"1" * 150 + b"a</b>") * 20_000),
        "bare prices": b"<h1>a</h1>" + b"<p><b>$ 5</b>" * 30_000 + b"<button>Add to cart</button>" * 5_000,
        "nested prices": b"<h1>a</h1>" + b'<b class="price">' * 250 + b"$ 5" + b"<img src=a>" * 50_000,
        "links with arrows": OPEN_GRAPH.encode() + b"<a>b</a>&gt;" * 100_000,
        "menus": OPEN_GRAPH.encode() + b'<p class="breadcrumb"><a>b</a>' + b'<div class="menu"><a>c</a></div>' * 50_000,
        "entities": b"<h1>&#xD800;&#0;&#x110000;&nosuch;" * 100,
    }


@pytest.mark.long
@pytest.mark.parametrize("name", hostile())
def test_hostile_pages(name: str) -> None:
    page = Page(URL, hostile()[name])
    started = time.process_time()
    found = extract(page)
    assert (product_links(page, STORE), next_page(page, STORE)) == ([], None)
    assert time.process_time() - started < 10
    if name == "numbers":
        assert isinstance(found, Extracted)
        assert (found.price, found.currency, found.sku) == (None, None, None)
    elif name in ("deep html", "wide html"):
        assert isinstance(found, Extracted)
        assert found.breadcrumb == ()


PIECES = [
    b"<", b">", b"[", b"{", b"}", b"\xff\xfe", b"\0", b"\x80", b"&#0;", b"null", b"1e999", b'"\\ud800"', b'"@graph":',
    b'<script type="application/ld+json">', b'{"@type":"Product","name":"a","image":"b","offers":', b"5}", b"</script>",
    b"<div itemscope itemtype=Product>", b"<b itemprop=", b"name>", b"offers>", b" itemref=a id=a ", b"<h1>a</h1>",
    b'<p typeof="Product" vocab="http://schema.org/">', b'<p property="name">', b'<ol class="breadcrumb"><li>',
    b"<base href=http://[>", b"<a href='http://[::1'>", b"<meta property=og:type content=product>",
]  # fmt: skip


@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=30),
    st.sampled_from([URL, "", "http://["]),
)
def test_no_bytes_raise(pieces: list[bytes], url: str) -> None:
    found = extract(Page(url, b"".join(pieces)))
    if isinstance(found, Extracted):
        found.title.encode()
        assert found.title


def test_links_of_a_listing() -> None:
    url = "https://www.shop.example/tools?page=2"
    listed = {"@type": "ItemList", "itemListElement": [
        {"@type": "ListItem", "url": "/p/1#x"}, {"@type": "ListItem", "item": {"@id": "/p/2", "url": "/p/2"}},
        {"@type": "ListItem", "url": "https://other.example/p/3"}]}  # fmt: skip
    p1, p2 = "https://www.shop.example/p/1", "https://www.shop.example/p/2"
    assert product_links(page_of(listed, url=url), STORE) == [p1, p2]
    assert product_links(page_of(body=TILE.format(1) + TILE.format(2), url=url), STORE) == [p1, p2]
    tiles = (
        '<li class="product-tile"><a href="/p/1"><img></a><a href="/p/1#reviews"><img></a></li><a href="/x"><img></a>'
    )
    assert product_links(page_of(body=tiles, url=url), STORE) == [p1]
    chosen = Store(name="shop", start_urls=STORE.start_urls, product_links=".all a", next_page="a.more::attr(href)")
    body = '<ul class=all><li><a href="/p/2">two</a></li></ul><a class=more href="?page=3">'
    assert product_links(page_of(listed, body=body, url=url), chosen) == [p2]
    assert next_page(page_of(body=body, url=url), chosen) == "https://www.shop.example/tools?page=3"


@pytest.mark.parametrize(
    "body",
    [
        '<link rel="next" href="?page=3">',
        '<div class="pagination"><a href="?page=1">‹</a> <a href="?page=3">›</a></div>',
        '<nav class="pages"><a aria-label="Next page" href="?page=3"><svg></svg></a></nav>',
        '<ul class="pager"><li><a href="?p=1">1</a><li class="active"><a>2</a><li><a href="?page=3">3</a></ul>',
    ],
)
def test_the_next_page(body: str) -> None:
    page = page_of(body=body, url="https://www.shop.example/tools?page=2")
    assert next_page(page, STORE) == "https://www.shop.example/tools?page=3"
    assert next_page(page_of(body="<a href=/next>Next</a>"), STORE) is None


@pytest.mark.long
def test_real_pages(test_data: Path) -> None:
    report = measure(test_data / "pages")
    assert report.others[0] == 0, report.differences
    assert report.products == (57, 57), report.differences
    assert report.breadcrumbs[0] == report.breadcrumbs[1], report.differences
    for name in ("price", "currency", "brand", "sku", "availability"):
        assert report.equal[name] >= 0.9 * report.given[name], report.differences


@pytest.mark.long
def test_pages_of_a_folder_without_snippets(tmp_path: Path) -> None:
    body = f"<html><head><script type='application/ld+json'>{TEXT}</script></head></html>"
    (tmp_path / "anvil.html").write_text(body)
    columns = (
        "file,role,url,jsonld_product,microdata_product,og_product,gt_price,gt_currency,gt_brand,gt_sku,gt_availability"
    )
    rows = [f"anvil.html,product,{URL},1,0,0,119.99,$,,,", "snippets/snippet1.html,fragment,,0,0,0,,,,,"]
    (tmp_path / "pages.csv").write_text("\n".join([columns, *rows]))
    report = measure(tmp_path)
    assert (report.products, report.breadcrumbs, report.missing) == ((1, 1), (0, 0), 1)
    assert report.equal == {"price": 1, "currency": 1}
    command = [sys.executable, "-m", "benchmarks.extraction", "--pages", str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| price | 1 | 1 | 1.000 |" in printed
    assert "| sku | 0 | 0 | - |" in printed
