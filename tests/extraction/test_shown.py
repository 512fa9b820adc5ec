import pytest

from atlas_ray.extraction.extract import NotAProduct, extract
from tests.extraction.pages import URL, page_of, product

H1 = "<h1>Executive Anvil</h1>"
IMAGE = '<img src="/i/anvil.jpg" alt="Executive Anvil, from the left">'
PRICE = '<span class="price">€ 19,99</span>'
CART = "<button>Add to cart</button>"
PAGES = [
    H1 + IMAGE + PRICE + CART,
    f"<div>{IMAGE}</div><div>{H1}<p>{PRICE}</p><form>{CART}</form></div>",
    H1 + IMAGE + "<p>19,99 €</p>" + CART,  # not called a price
    H1 + IMAGE + "<div><b>€</b> 19<sup>99</sup></div>" + CART,
    H1 + IMAGE + '<del class="price">€ 25,00</del>' + PRICE + CART,
    H1 + IMAGE + '<div class="price"><i>€</i> <b class="price-value">19,99</b></div>' + CART,
    H1 + IMAGE + PRICE + '<a class="btn" href="#">In den Warenkorb</a>',
    H1 + '<img src="/i/anvil.jpg">' + PRICE + CART,
    H1 + '<img src="/logo.png"><img src="/i/anvil.jpg" alt="anvil"><img src="x.jpg" width=20>' + PRICE + CART,
    H1 + IMAGE + PRICE + CART + '<div class="related"><h2>Also</h2><a href="/p/2"><img></a><b>€ 5</b></div>',
    H1 + IMAGE + PRICE + CART + "<h2>Description</h2><p>Heavy</p><p>€ 3,00 / month</p>",
    f'<div>{H1}{IMAGE}<p>RRP <span>€ 25,00</span></p><p class="price">€ 19,99</p>{CART}</div>',
    f"<div>{H1}{IMAGE}<p>Our price: {PRICE} incl. VAT</p><p>Free delivery above <b>€ 50</b></p>{CART}</div>",
    f"<div>{H1}{IMAGE}<p>{PRICE}</p><p>You save <b>€ 5,00</b></p>{CART}</div>",
    f"<header><h1></h1></header>{H1}{IMAGE}{PRICE}{CART}<footer>{CART}</footer>",
]


@pytest.mark.parametrize("body", PAGES)
def test_a_product_that_is_plain_to_see(body: str) -> None:
    found = product(page_of(body=body))
    assert (found.title, found.price, found.currency) == ("Executive Anvil", 19.99, "EUR")
    assert (found.availability, found.image_urls) == ("InStock", ("https://www.shop.example/i/anvil.jpg",))
    assert set(found.origins.values()) == {"markup"}


def test_the_sign_of_several_currencies_and_what_is_sold_out() -> None:
    found = product(page_of(body=H1 + IMAGE + "<b>$1,299.50</b><button>Sold out</button>"))
    assert (found.price, found.currency, found.availability) == (1299.5, None, "OutOfStock")


@pytest.mark.parametrize(
    "gallery",
    [
        '<ul><li><img src="/1.jpg" alt="Anvil 1"></li><li><img src="/2.jpg" alt="Anvil 2"></li></ul>',
        '<div class="slider"><img src="/1.jpg" alt="Anvil 1"><img data-src="/2.jpg" src="x.gif" alt="Anvil 2"></div>',
        '<a href="/1.jpg"><img src="/1.jpg" alt="Anvil"></a><a href="#2"><img src="/2.jpg" alt="Anvil"></a>',
        '<img data-zoom-image=false src="/1.jpg" alt="Anvil"><img src="/2.jpg" alt="Anvil">'
        '<a href="/p/3"><img src="/3.jpg" alt="Anvil"></a>',
    ],
)
def test_a_gallery(gallery: str) -> None:
    related = '<ul class="related"><li><img src="/9.jpg" alt="Travel anvil"></li></ul>'
    found = product(page_of(body=H1 + gallery + PRICE + CART + related))
    assert found.image_urls == ("https://www.shop.example/1.jpg", "https://www.shop.example/2.jpg")


def test_the_pages_own_picture_where_none_near_is_named_after_it() -> None:
    head = '<meta property="og:image" content="/og.jpg"><meta property="og:type" content="website">'
    found = product(page_of(body=f'{H1}<img src="/app.jpg" alt="Our app">{PRICE}{CART}', head=head))
    assert found.image_urls == ("https://www.shop.example/og.jpg",)


TILE = '<li><a href="/p/{0}"><img src="/{0}.jpg"></a> <b class="price">€ {0}</b> <button>Add to cart</button></li>'
NO_PRODUCTS = {
    "no heading": IMAGE + PRICE + CART,
    "two headings": H1 + "<h1>Travel Anvil</h1>" + IMAGE + PRICE + CART,
    "no price": H1 + IMAGE + CART,
    "two prices": H1 + IMAGE + PRICE + "<b class=price>€ 25</b>" + CART,
    "a range of prices": H1 + IMAGE + "<b>€ 10</b> - <b>€ 20</b>" + CART,
    "a former price alone": H1 + IMAGE + f"<del>{PRICE}</del>" + CART,
    "no control": H1 + IMAGE + PRICE,
    "another control": H1 + IMAGE + PRICE + "<button>Subscribe</button>",
    "controls that differ": H1 + IMAGE + PRICE + CART + "<button>Sold out</button>",
    "many controls": H1 + IMAGE + PRICE + CART + f"<p>{CART}</p><i>{CART}</i><div>{CART}</div>",
    "no picture": H1 + PRICE + CART,
    "a logo alone": H1 + '<img src="/logo.png" alt="Executive Anvil">' + PRICE + CART,
    "a picture of something else": H1 + '<img src="/app.jpg" alt="Our app">' + PRICE + CART,
    "a listing": f"<h1>Anvils</h1><ul>{TILE.format(1)}{TILE.format(2)}{TILE.format(3)}</ul>",
    "a listing of one": f"<h1>Anvils</h1><ul>{TILE.format(1)}</ul>",
    "a search": f"<h1>Results for anvil</h1><div><h2>Executive Anvil</h2>{IMAGE}{PRICE}{CART}</div>",
    "a teaser": f'<h1>Anvil news</h1>{IMAGE}<a href="/p/1">{PRICE}</a>{CART}',
    "in the footer": H1 + IMAGE + f"<footer>{PRICE}{CART}</footer>",
    "recommended": H1 + IMAGE + f'<div class="recommended">{PRICE}{CART}</div>',
    "a search of one, named by its picture": f"<h1>Results for steel</h1><div><b>Anvil</b>{IMAGE}{PRICE}{CART}</div>",
    "a teaser by its picture": f"<h1>Tools</h1><p>All tools.</p><div>{IMAGE}{PRICE}{CART}</div>",
    "a link to a variety": f'{H1}<div><a href="/p/2">Executive Anvil, large</a>{IMAGE}{PRICE}{CART}</div>',
    "an article": f"{H1}{IMAGE}<p>{'How we make it. ' * 300}</p>{PRICE}{CART}",
    "shipping": H1 + IMAGE + f"<p>Free shipping over {PRICE}</p>{CART}",
    "prose": H1 + IMAGE + f"<p>More than two hundred anvils below {PRICE}</p>{CART}",
    "a small cart": H1 + IMAGE + f'<div class="minicart">{PRICE}</div>{CART}',
    "a total": H1 + IMAGE + f"<p>Your cart: {PRICE}</p>{CART}",
    "a former price by its label": H1 + IMAGE + f"<p>RRP {PRICE}</p>{CART}",
    "a list for machines": PAGES[0] + '<script type="application/ld+json">{"@type":"ItemList"}</script>',
}  # fmt: skip


@pytest.mark.parametrize("name", NO_PRODUCTS)
def test_no_product_is_made_of_what_is_not_plain(name: str) -> None:
    assert isinstance(extract(page_of(body=NO_PRODUCTS[name])), NotAProduct)


@pytest.mark.parametrize(
    ("url", "head", "more"),
    [
        ("https://www.shop.example/", "", ""),
        (URL, '<meta property="og:type" content="article">', ""),
        (URL, "", '<script type="application/ld+json">{"@type":"NewsArticle"}</script>'),
    ],
)
def test_a_front_page_and_an_article(url: str, head: str, more: str) -> None:
    assert isinstance(extract(page_of(url=url, head=head + more, body=PAGES[0])), NotAProduct)
