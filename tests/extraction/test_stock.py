import re

import pytest

from atlas_ray.extraction.stock import CART, stock
from tests.extraction.pages import OFFER, PRODUCT, page_of, product

HEADING = "<h1>Executive Anvil</h1>"
ADD = "<button>Add to cart</button>"
SOLD_OUT = "<button disabled>Sold out</button>"
TILE = '<li class="tile"><a href="/p/hammer">Hammer</a><button>Add to cart</button></li>'


def stock_of(body: str) -> str | None:
    return stock(page_of(body=body), "Executive Anvil")


ADDING = (
    "Add to cart", "ADD TO BAG", "Add  Executive Anvil to your basket", "+ Add to trolley – £34.99",
    "In den Warenkorb", "Ajouter au panier", "Aggiungi al carrello", "Añadir al carrito", "Añadir a la cesta",
    "Adicionar ao carrinho", "In winkelwagen", "Lägg i varukorgen", "Læg i kurv", "Legg i handlekurv",
    "Lisää ostoskoriin", "Lisa ostukorvi", "Pievienot grozam", "Į krepšelį", "Dodaj do koszyka", "Do košíku",
    "Dodaj u košaricu", "Kosárba", "Adaugă în coș", "Sepete Ekle", "Προσθήκη στο καλάθι", "В корзину",
    "Добавить в корзину", "הוספה לסל", "أضف إلى السلة", "カートに入れる", "加入購物車", "장바구니 담기",
    "Thêm vào giỏ hàng", "Tambah ke keranjang", "หยิบใส่ตะกร้า", "Afegir a la cistella",
)  # fmt: skip


@pytest.mark.parametrize("text", ADDING)
def test_a_control_that_fills_the_cart(text: str) -> None:
    assert stock_of(f"{HEADING}<button><b>{text}</b></button>") == "InStock"


def test_each_language_has_an_example() -> None:
    folded = [text.casefold() for text in ADDING]
    for language, wording in CART.items():
        assert any(re.search(wording.replace("N?", "(?:.* )?"), text) for text in folded), language


@pytest.mark.parametrize(
    "control",
    [
        '<input type="submit" value="Add to cart">',
        '<input type="image" alt="Add to cart">',
        '<a class="btn" href="/cart/add">Add to cart</a>',
        '<a class="btn" title="Add Executive Anvil to your cart">Go!</a>',
        '<span role="button" aria-label="Add to cart"><svg></svg></span>',
        f"{ADD}<div class=sticky>{ADD}</div>",
        f"{ADD}<h2>Related products</h2><ul>{TILE}{TILE}</ul>",
        f"{ADD}<section>{SOLD_OUT}</section>",  # farther from the heading
    ],
)
def test_controls(control: str) -> None:
    assert stock_of(f"<main><div><div>{HEADING}</div>{control.partition('<section>')[0]}</div>{control}") == "InStock"


@pytest.mark.parametrize(
    "body",
    [
        HEADING + SOLD_OUT,
        HEADING + "<button>Notify me when available</button>",
        HEADING + '<a class="button">Ausverkauft</a>',
        f"<div>{HEADING}{SOLD_OUT}</div><p>Frequently bought with it:</p><p>{ADD}</p>",
    ],
)
def test_a_control_that_says_there_is_none(body: str) -> None:
    assert stock_of(body) == "OutOfStock"


@pytest.mark.parametrize(
    "body",
    [
        HEADING,
        f"{HEADING}<ul>{TILE}{TILE}</ul>",
        f'{HEADING}<div class="related-products">{ADD}</div>',
        f"<ul><li>{ADD}</li><li>{HEADING}</li><li>{ADD}</li></ul>",
        HEADING + "<button disabled>Add to cart</button>",
        HEADING + '<button aria-disabled="true">Add to cart</button>',
        HEADING + '<a class="btn is-disabled disabled">Add to cart</a>',
        f'{HEADING}<div style="display: none">{ADD}</div><template>{ADD}</template><footer>{ADD}</footer>',
        HEADING + ADD + SOLD_OUT,
        HEADING + '<a class="btn">Go to cart</a><a class="cart">Cart (2)</a><button>Add to wishlist</button>',
        HEADING + '<button>Przejdź do koszyka</button><button>Weiter in den Warenkorb</button>',
        HEADING + "<p>Add to cart</p><a href=/add>Add to cart</a><button>How do I add to cart? In three steps</button>",
        HEADING + "<p>Sold out</p><button>Are others sold out?</button>",
        f"<h1>Shop</h1><h1>Sale</h1>{ADD}",
        ADD,
    ],
)  # fmt: skip
def test_what_says_nothing(body: str) -> None:
    assert stock_of(body) is None


def test_only_where_the_data_says_nothing() -> None:
    silent = {**PRODUCT, "offers": {name: value for name, value in OFFER.items() if name != "availability"}}
    body = "<h1>Executive &amp; Anvil</h1>" + ADD
    found = product(page_of(silent, body=body))
    assert (found.availability, found.origins["availability"]) == ("InStock", "markup")
    stated = {**PRODUCT, "offers": {**OFFER, "availability": "OutOfStock"}}
    assert product(page_of(stated, body=body)).availability == "OutOfStock"


SILENT = {**PRODUCT, "offers": {name: value for name, value in OFFER.items() if name != "availability"}}


@pytest.mark.long
@pytest.mark.parametrize(
    ("body", "concluded"),
    [
        ("", True),
        ("<p>In stock</p><p>Available from May</p><p>10 in stock</p><p>Resold by others</p>", True),
        ("<a class=buy><i>Add to cart</i><i>Notify me</i><span>Currently unavailable</span></a>", True),
        ("<script>'sold out'</script><style>.sold-out{}</style><!-- sold out -->", True),
        ("<span class=badge>Sold out!</span>", False),
        ("<span class=badge><svg></svg> Sold out</span>", False),
        ("<ul><li> Out of  stock </li></ul>", False),
        ("<dl><dt>Availability<dd>Out of stock</dl>", False),
        ("<p>Availability: out of stock</p>", False),
        ("<h2>This item is sold out.</h2>", False),
        ("<p>Dieser Artikel ist derzeit ausverkauft</p>", False),
        ("<p>Sorry, no longer available</p>", False),
        ("<b>SOLD</b>", False),
        ("<button><b>Notify me when available</b></button>", False),
        ("<button aria-label='Sold out'><svg></svg></button>", False),
        ("<input type=submit value='Sold out' disabled>", False),
        (HEADING + ADD + SOLD_OUT, False),
        ("<b>x</b>" * 40_000, False),  # more than is looked at
    ],
)
def test_what_has_a_price_is_offered_where_nothing_says_otherwise(body: str, concluded: bool) -> None:
    found = product(page_of(SILENT, body=body))
    assert (found.availability, found.origins.get("availability")) == (
        ("InStock", "offer") if concluded else (None, None)
    )
    unpriced = {name: value for name, value in PRODUCT.items() if name != "offers"}
    assert product(page_of(unpriced, body=body)).availability is None


@pytest.mark.parametrize("text", ["https://schema.org/Unavailable", "temporarily out of stock", "ausverkauft", "false"])
def test_nothing_is_concluded_where_the_data_says_something(text: str) -> None:
    assert product(page_of({**PRODUCT, "offers": {**OFFER, "availability": text}})).availability != "InStock"
    each = [{**OFFER, "availability": text}]
    for holder in ("offers", "offer"):
        several = {**PRODUCT, "offers": None, holder: {"@type": "AggregateOffer", "offers": each}}
        assert product(page_of(several)).availability != "InStock"
    head = f"<meta property='product:availability' content='{text}'>"
    assert product(page_of(SILENT, head=head)).availability != "InStock"


def test_a_control_with_much_white_space() -> None:
    space = f"<i>{' ' * 150}</i>" * 8
    assert stock_of(f"{HEADING}<button>{space}<b>Sold</b> <b>out</b></button>") == "OutOfStock"
    assert stock_of(f"{HEADING}<button>{space}<b>Add to cart</b></button>") == "InStock"
