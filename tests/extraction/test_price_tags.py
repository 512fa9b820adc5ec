import pytest

from atlas_ray.crawl.store import Store
from atlas_ray.extraction.offers import Offer
from atlas_ray.extraction.price_tags import current_price, shown_price
from tests.extraction.pages import PRODUCT, STORE, page_of, product

HEADING = "<h1>Executive Anvil</h1>"
TILE = '<li><a href="/p/hammer">Hammer</a> <b class="price">€ 7,50</b></li>'


def shown(body: str) -> Offer:
    return shown_price(page_of(body=body), "Executive Anvil")


@pytest.mark.parametrize(
    "body",
    [
        '<div class="price">€ <span>1.206,-</span></div>',
        '<div class="price has-type"><b>€ <i>1.206,-</i></b><div>Fixed price</div></div>',
        '<span class="product-price">1206 EUR</span><p id="price2">1.206,00</p>',
        '<del class="price">€ 1.400</del><b class="price">€ 1.206</b>',
        '<b class="oldPrice old-price">€ 1.400</b><b class="price">€ 1.206</b>',
        f'<b class="price">€ 1.206</b><ul>{TILE}{TILE}</ul><p class="shipping-price">€ 5</p><b class="price">Price</b>',
    ],
)
def test_the_only_price_that_a_page_shows(body: str) -> None:
    assert shown(HEADING + body) == Offer(1206, "EUR")


@pytest.mark.parametrize(
    "body",
    [
        "<p>€ 1.206</p>",  # not called a price
        '<b class="price">€ 1.206</b><b class="price">€ 1.300</b>',
        '<b class="price">€ 1.206</b><b class="price">12<sup>99</sup> €</b>',
        '<b class="price">€ 12</b><b class="price">$ 12</b>',
        '<b class="price">$ 1,206</b>',  # of many countries
        '<del class="price">€ 1.206</del>',
        '<b class="price">€ 1.206 / 100 g</b><b class="price-drop">-50% €</b>',
        '<p class="price">Free delivery from € 50 on</p><b class="price">€ 0</b>',
        f"<ul>{TILE}{TILE}</ul>",
        f'<div class="related">{TILE}</div>',
        '<b class="price">€ 1.206</b>' * 300,
    ],
)
def test_no_price_or_several(body: str) -> None:
    assert shown(HEADING + body) == Offer()


def test_only_where_the_data_has_no_price() -> None:
    body = '<h1>Executive &amp; Anvil</h1><b class="price">€ 1.206</b>'
    found = product(page_of({**PRODUCT, "offers": {}}, body=body))
    assert (found.price, found.currency, found.origins["price"]) == (1206, "EUR", "markup")
    assert product(page_of({**PRODUCT, "offers": {"priceCurrency": "USD"}}, body=body)).price is None
    assert product(page_of(PRODUCT, body=body)).price == 119.99


SALE = """<div itemscope itemtype="http://schema.org/Product"><h1 itemprop="name">Executive Anvil</h1>
<div itemprop="offers" itemscope itemtype="http://schema.org/Offer"><meta itemprop="price" content="219.99">
<meta itemprop="priceCurrency" content="EUR">{}</div></div><b class="price">€ 3</b>"""


@pytest.mark.parametrize(
    ("tags", "price"),
    [
        ('<b class="original-price">€219.99</b> -50% <b class="price now">€110.00</b>', 110),
        ('<del><b class="price">€219.99</b></del> <div class="price"><b class="price">€110.00</b></div>', 110),
        ('<b class="price">€219.99</b> <b class="price">€110.00</b>', 219.99),
        ('<del class="price">€219.99</del> <b class="price">€110.00</b><b class="price">€100.00</b>', 219.99),
        ('<del class="price">€250.00</del> <b class="price">€219.99</b>', 219.99),
        ('<del class="price">€219.99</del> <b class="price">€240.00</b>', 219.99),
        ('<del class="price">€219.99</del> <b class="unit-price">€2.00</b>', 219.99),
        ('<del class="price">€219.99</del>', 219.99),
    ],
)
def test_a_former_price_in_microdata(tags: str, price: float) -> None:
    page = page_of(body=SALE.format(tags))
    found = product(page)
    assert (found.price, found.currency) == (price, "EUR")
    assert found.origins["price"] == ("microdata" if price == 219.99 else "markup")
    assert current_price(page, 200) is None


RAISED = [
    ("19<sup>99</sup> €", 19.99),
    ("€ 19<sup>99</sup>", 19.99),
    ("19<sup>,99</sup> €", 19.99),
    ("19,<sup>99</sup> €", 19.99),
    ("19<sup>99 €</sup>", 19.99),
    ("19 €<sup>99</sup>", 19.99),
    ("<b>19</b><sup>.</sup><sup>99</sup> €", 19.99),
    ("<i>€</i><b>1.299</b><small>50</small>", 1299.5),
    ("<i>€</i><b>1,299</b><sup>50</sup>", 1299.5),
    ('<span class="whole">19<span class="decimal">.</span></span><span class="fraction">99</span> €', 19.99),
    ('19<span class="cents">99</span> €', 19.99),
    ("19<sup>€99</sup>", 19.99),
    ("19<sup>99 EUR</sup>", 19.99),
    ("19,99 €<sup>1</sup>", 19.99),
    ("19 € <small>inkl.</small>", 19),
    ("19,99<sup>1)</sup> €", 19.99),
    ("19 €<sup>*</sup>", 19),
    ('<span class="sr-only">Price </span>19<sup>99</sup> €', 19.99),
]


@pytest.mark.parametrize(("text", "price"), RAISED)
def test_decimals_in_an_element_of_their_own(text: str, price: float) -> None:
    assert shown(f'{HEADING}<div class="price">{text}</div>') == Offer(price, "EUR")
    store = Store(**vars(STORE) | {"fields": {"title": "h1", "price": "#p"}})
    selected = product(page_of(body=f"<h1>Anvil</h1><p id=p>{text}</p>"), store)
    assert (selected.price, selected.currency) == (price, "EUR")
    marked = page_of(
        body=f"""<div itemscope itemtype="http://schema.org/Product"><h1 itemprop="name">Anvil</h1>
        <p itemprop="offers" itemscope itemtype="http://schema.org/Offer"><b itemprop="price">{text}</b></p></div>"""
    )
    assert product(marked).price == price


def test_a_selected_currency_tells_the_decimals_of_a_selected_price() -> None:
    store = Store(**vars(STORE) | {"fields": {"title": "h1", "price": "#p", "currency": "#c"}})
    found = product(page_of(body="<h1>Anvil</h1><b id=p>3.350</b><i id=c>KWD</i>"), store)
    assert (found.price, found.currency) == (3.35, "KWD")
    assert shown(f'{HEADING}<b class="price">KWD 3.350</b>') == Offer(3.35, "KWD")
    assert shown(f'{HEADING}<b class="price">BHD 1,250.500</b>') == Offer(1250.5, "BHD")


@pytest.mark.parametrize(
    "line",
    [
        "Free shipping over {}",
        "You save {}",
        "RRP: {}",
        "All orders of at least {}",
        "<b>Versand</b> {}",
        "Your cart: {}",
    ],
)
def test_a_price_of_something_else_by_the_words_before_it(line: str) -> None:
    body = f"<h1>Anvil</h1><p>{line.format('<span class=price>€50</span>')}</p>"
    found = product(page_of({"@type": "Product", "name": "Anvil", "sku": 7}, body=body))
    assert found.price is None
