"""A small shop that the project draws and serves on loopback, with what real shops do to a crawler.

Its products are markup of four kinds; its oddities stand in `ODD`. Nothing leaves the machine.
"""

import contextlib
import functools
import gzip
import html
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from atlas_ray.io import storage

MARKUPS = ("json-ld", "microdata", "opengraph", "plain")
PRODUCTS_PER_PAGE = 6
ODD = {
    "/odd/forbidden.html": "forbidden_by_robots",
    "/odd/loop.html": "redirect_loop",
    "/odd/metadata.html": "forbidden_address",
    "/odd/other-port.html": "forbidden_address",
    "/odd/away.html": "offsite",
    "/odd/noai.html": "noai",
    "/odd/noai-header.html": "noai",
    "/odd/gone.html": "not_found",
    "/odd/broken.html": "server_error",
    "/odd/slow.html": "timeout",
    "/odd/huge.html": "too_large",
    "/odd/bomb.html": "too_large",
    "/odd/manual.pdf": "not_html",
    "/odd/article.html": "not_a_product",
}
"""Pages that the listings link to like products, and what becomes of each in a crawl."""
RECOVERING = "/product/1.html"
"""A page that answers 500 the first time and 200 afterwards."""
WITHOUT_PICTURES = "/product/2.html"
"""A page that asks that its pictures are not used for machine learning."""
SLOW_S = 30.0
ROBOTS = "User-agent: *\nDisallow: /odd/forbidden\nDisallow: /account/\n"


@dataclass(frozen=True, kw_only=True)
class ShopProduct:
    """One thing that the shop sells.

    Attributes:
        title: Its name.
        description: Plain text.
        price: In euros.
        breadcrumb: The names from the top category down.
        picture: A JPEG.
        close_ups: More JPEGs.
    """

    title: str
    description: str
    price: float
    breadcrumb: tuple[str, ...]
    picture: bytes = field(repr=False)
    close_ups: tuple[bytes, ...] = field(default=(), repr=False)


def draw_shop(folder: str, products: Sequence[ShopProduct]) -> None:
    """Write the shop's static pages and pictures to a local folder.

    The category of each top name has its listing, of several pages; the pages of the markups
    `json-ld`, `microdata`, `opengraph` and `plain` take turns. The first product of each category
    is linked twice, under two URLs with one canonical URL.

    Args:
        folder: An empty or missing local folder.
        products: What the shop sells, at least two.
    """
    categories: dict[str, list[int]] = {}
    for number, product in enumerate(products):
        categories.setdefault(product.breadcrumb[0], []).append(number)
        for path, content in zip(_pictures(number, product), (product.picture, *product.close_ups), strict=True):
            _write(folder, path[1:], content)
        _write(folder, f"product/{number}.html", _product_page(number, product, MARKUPS[number % len(MARKUPS)]))
        _write(folder, f"app/product/{number}.html", _scripted_page(number, product))
    odd = [(path, path.rpartition("/")[2]) for path in ODD]
    for place, (name, numbers) in enumerate(categories.items()):
        links = [(f"/product/{number}.html", products[number].title) for number in numbers]
        links.append((f"/product/{numbers[0]}.html?colour=red", products[numbers[0]].title))
        if place == 0:
            links += [*odd, ("http://elsewhere.example/product/1.html", "A shop elsewhere")]
        pages = [links[first : first + PRODUCTS_PER_PAGE] for first in range(0, len(links), PRODUCTS_PER_PAGE)]
        for page, shown in enumerate(pages, 1):
            following = f"/category/{place}/{page + 1}.html" if page < len(pages) else None
            _write(folder, f"category/{place}/{page}.html", _listing(name, shown, following))
    scripted = [(f"/app/product/{number}.html", "Show") for number in range(2)]
    _write(folder, "app/index.html", _listing("New", [*scripted, ("/odd/forbidden.html", "Show")], None))
    _write(folder, "index.html", _page("A demo shop", "<h1>A demo shop</h1>"))
    _write(folder, "robots.txt", ROBOTS)
    _write(folder, "odd/forbidden.html", _product_page(0, products[0], "json-ld"))
    _write(folder, "odd/noai.html", _page("No", "", '<meta name="Robots" content="index, NoAI">'))
    _write(folder, "odd/noai-header.html", _page("No", "<p>See the header</p>"))
    _write(folder, "odd/huge.html", _page("Huge", "<p>more and more</p>" * 400_000))
    _write(folder, "odd/bomb.html", gzip.compress(b" " * 50_000_000))
    _write(folder, "odd/manual.pdf", b"%PDF-1.4\n")
    _write(folder, "odd/article.html", _page("How to wash", "<h1>How to wash</h1><p>Cold.</p>"))
    _write(folder, "categories.json", json.dumps(list(categories)))


class Shop:
    """The shop being served.

    Attributes:
        url: Where, such as `http://127.0.0.1:8000`.
        place: Host and port, as `AddressRule` takes them.
        requests: The paths asked for so far, in order.
        neighbour: Another private address, which the shop redirects to.
    """

    def __init__(self, folder: str, delay_s: float) -> None:
        self.folder = folder
        self.delay_s = delay_s
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, shop=self))
        self.place = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.place}"
        self.neighbour = "http://127.0.0.1:9/"

    def write_stores(self, path: str) -> None:
        """Write the stores file for this shop: `demo`, and `demo-app`, whose pages need a browser."""
        with open(os.path.join(self.folder, "categories.json")) as stream:
            categories = range(len(json.load(stream)))
        common: dict[str, Any] = {
            "product_links": "a.product::attr(href)",
            "next_page": "a.next::attr(href)",
            "delay_s": 0,
            "concurrency": 4,
        }
        demo = {
            "name": "demo",
            "start_urls": [f"{self.url}/category/{place}/1.html" for place in categories],
            # For the pages without structured data; elsewhere nothing has these names.
            "fields": {
                "title": ".shown-title::text",
                "price": ".shown-price::text",
                "description": ".shown-text::text",
                "breadcrumb": ".shown-trail a::text",
                "image_urls": "img.shown::attr(src)",
            },
        }
        app = {"name": "demo-app", "start_urls": [f"{self.url}/app/index.html"], "render": True}
        document = json.dumps({"stores": [demo | common, app | common]}, indent=1)  # JSON is YAML, too
        storage.write_bytes(path, document.encode())


@contextlib.contextmanager
def serve_shop(folder: str, *, delay_s: float = 0.0) -> Iterator[Shop]:
    """Serve a drawn shop on a free port of 127.0.0.1 while the context lasts.

    Args:
        folder: Where `draw_shop` has written.
        delay_s: Before each answer.
    """
    shop = Shop(folder, delay_s)
    thread = threading.Thread(target=shop.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        shop.server.shutdown()
        shop.server.server_close()
        thread.join()


class _Handler(SimpleHTTPRequestHandler):
    """Static files, and the paths that behave in their own way."""

    def __init__(self, *arguments: Any, shop: Shop) -> None:
        self._shop = shop
        super().__init__(*arguments, directory=shop.folder)

    def do_GET(self) -> None:
        self._shop.requests.append(self.path)
        time.sleep(self._shop.delay_s)
        asked = Counter(self._shop.requests)[self.path]
        redirects = {
            "/odd/loop.html": "/odd/loop-back.html",
            "/odd/loop-back.html": "/odd/loop.html",
            "/odd/metadata.html": "http://169.254.169.254/latest/meta-data/",
            "/odd/other-port.html": self._shop.neighbour,
            "/odd/away.html": "http://elsewhere.example/product/2.html",
        }
        if self.path in redirects:
            self.send_response(302)
            self.send_header("Location", redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/odd/broken.html" or (self.path == RECOVERING and asked == 1):
            self.send_error(500)
        else:
            if self.path == "/odd/slow.html":
                time.sleep(SLOW_S)
            with contextlib.suppress(ConnectionError):  # the client has had enough of it
                super().do_GET()

    def end_headers(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/odd/noai-header.html":
            self.send_header("X-Robots-Tag", "noindex, noai")
        elif path == "/odd/bomb.html":
            self.send_header("Content-Encoding", "gzip")
        elif path == WITHOUT_PICTURES:
            self.send_header("X-Robots-Tag", "noimageai")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing on the terminal; `Shop.requests` has it all."""


def _write(folder: str, name: str, content: str | bytes) -> None:
    storage.write_bytes(os.path.join(folder, name), content.encode() if isinstance(content, str) else content)


def _pictures(number: int, product: ShopProduct) -> list[str]:
    """Return the paths of a product's pictures."""
    return [f"/pictures/{number}.jpg", *(f"/pictures/{number}-{n}.jpg" for n in range(1, len(product.close_ups) + 1))]


def _page(title: str, body: str, head: str = "") -> str:
    title = html.escape(title)
    return f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}</head><body>{body}'


def _listing(name: str, links: Sequence[tuple[str, str]], following: str | None) -> str:
    tiles = "".join(f'<li><a class="product" href="{path}">{html.escape(title)}</a></li>' for path, title in links)
    more = f'<a class="next" href="{following}">Next page</a>' if following else ""
    return _page(name, f'<h1>{html.escape(name)}</h1><ul>{tiles}</ul><a href="/account/">Account</a>{more}')


def _product_page(number: int, product: ShopProduct, markup: str) -> str:
    title, text = html.escape(product.title), html.escape(product.description)
    path, pictures, price = f"/product/{number}.html", _pictures(number, product), f"{product.price:.2f}"
    head, body = f'<link rel="canonical" href="{path}">', ""
    if markup == "json-ld":
        head += f'<script type="application/ld+json">{_json_ld(number, product)}</script>'
    elif markup == "microdata":
        images = "".join(f'<img itemprop="image" src="{picture}">' for picture in pictures)
        trail = "".join(
            '<li itemprop="itemListElement" itemscope itemtype="https://schema.org/ListItem">'
            f'<a itemprop="item" href="/"><span itemprop="name">{html.escape(name)}</span></a>'
            f'<meta itemprop="position" content="{place}"></li>'
            for place, name in enumerate(product.breadcrumb, 1)
        )
        body = (
            f'<ol itemscope itemtype="https://schema.org/BreadcrumbList">{trail}</ol>'
            f'<div itemscope itemtype="https://schema.org/Product"><h1 itemprop="name">{title}</h1>'
            f'{images}<p itemprop="description">{text}</p>'
            '<div itemprop="offers" itemscope itemtype="https://schema.org/Offer">'
            f'<span itemprop="price" content="{price}">€ {price}</span><meta itemprop="priceCurrency" content="EUR">'
            "</div></div>"
        )
    elif markup == "opengraph":
        metas = {
            "og:type": "product",
            "og:title": title,
            "og:description": text,
            "og:image": pictures[0],
            "product:price:amount": price,
            "product:price:currency": "EUR",
        }
        head += "".join(f'<meta property="{name}" content="{value}">' for name, value in metas.items())
        body = f"{_trail(product, 'breadcrumb')}<h1>{title}</h1><p>{text}</p>"
    else:
        images = "".join(f'<img class="shown" src="{picture}">' for picture in pictures)
        body = (
            f'{_trail(product, "shown-trail")}<h1 class="shown-title">{title}</h1>{images}'
            f'<p class="shown-text">{text}</p><p class="shown-price">€ {price}</p>'
        )
    return _page(product.title, body, head)


def _trail(product: ShopProduct, name: str) -> str:
    links = "".join(f'<a href="/">{html.escape(category)}</a>' for category in product.breadcrumb)
    return f'<nav class="{name}">{links}</nav>'


def _json_ld(number: int, product: ShopProduct) -> str:
    trail = [{"@type": "ListItem", "position": n, "name": name} for n, name in enumerate(product.breadcrumb, 1)]
    graph = [
        {"@type": "BreadcrumbList", "itemListElement": trail},
        {
            "@type": "Product",
            "name": product.title,
            "description": product.description,
            "image": _pictures(number, product),
            "sku": f"D{number}",
            "offers": {"@type": "Offer", "price": round(product.price, 2), "priceCurrency": "EUR"},
        },
    ]
    return json.dumps({"@context": "https://schema.org", "@graph": graph}).replace("<", "\\u003c")


def _scripted_page(number: int, product: ShopProduct) -> str:
    """Return a page on which the product appears only when its script has run.

    The script also asks for what it must not get: private addresses, by a redirect and at once, and
    a page that robots.txt forbids.
    """
    data = json.dumps(_json_ld(number, product)).replace("<", "\\u003c")
    script = f"""
        const data = document.createElement("script");
        data.type = "application/ld+json";
        data.text = {data};
        document.head.append(data);
        fetch("/odd/other-port.html", {{mode: "no-cors"}}).catch(() => 0);
        fetch("http://169.254.169.254/").catch(() => 0);
        setTimeout(() => {{ location.href = "/odd/forbidden.html"; }}, 100);
    """
    return _page("Loading", f"<p>Loading</p><script>{script}</script>")
