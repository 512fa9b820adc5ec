"""The pictures that a page shows of its product."""

from atlas_ray.crawl.page import Page

ADDRESSES = ("data-zoom-image", "data-large", "data-original", "data-lazy-src", "data-src", "src", "content", "href")
"""Attributes that hold a picture's address, the largest picture's first."""
MAX_PICTURES = 20


def loose_pictures(page: Page) -> list[str]:
    """Return the addresses of elements marked as the page's `image` outside of any item."""
    elements = page.tree.xpath("//*[@itemprop='image' and not(ancestor-or-self::*[@itemscope])]")
    found = (next(filter(None, map(element.get, ADDRESSES)), None) for element in elements[:MAX_PICTURES])
    return [address for address in found if address and not address.startswith("data:")]
