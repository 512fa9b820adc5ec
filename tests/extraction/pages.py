"""Pages of a product, and what is extracted from them."""

import json
from typing import Any

from atlas_ray.crawl.store import StartUrl, Store
from atlas_ray.extraction.extract import Extracted, extract
from atlas_ray.extraction.page import Page

URL = "https://www.shop.example/p/anvil"
STORE = Store(name="shop", start_urls=(StartUrl("https://www.shop.example/"),))
OFFER = {"@type": "Offer", "price": "119.99", "priceCurrency": "USD", "availability": "https://schema.org/InStock"}
PRODUCT: dict[str, Any] = {
    "@context": "https://schema.org",
    "@type": "Product",
    "name": "Executive &amp; Anvil",
    "description": "Sleek,\n<b>heavy</b>",
    "sku": 925872,
    "brand": {"@type": "Brand", "name": "ACME"},
    "image": ["/a.jpg", {"@type": "ImageObject", "url": "//cdn.example/b.jpg"}, "/a.jpg", "data:image/png;base64,AA"],
    "offers": OFFER,
}


def page_of(*blocks: object, body: str = "", head: str = "", url: str = URL) -> Page:
    texts = (block if isinstance(block, str) else json.dumps(block) for block in blocks)
    scripts = "".join(f'<script type="application/ld+json">{text}</script>' for text in texts)
    return Page(url, f"<html><head>{head}{scripts}</head><body>{body}</body></html>".encode(), "text/html")


def product(page: Page, store: Store = STORE) -> Extracted:
    found = extract(page, store.fields)
    assert isinstance(found, Extracted), found
    return found
