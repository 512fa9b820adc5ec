"""The pictures that a page shows of its product."""

import re
from urllib.parse import unquote

import lxml.html

from atlas_ray.extraction.page import FIRST_UNSPACED, Page, plain_key
from atlas_ray.extraction.vicinity import nearest

ADDRESSES = ("data-zoom-image", "data-large", "data-original", "data-lazy-src", "data-src", "src", "content", "href")
"""Attributes that hold a picture's address, the largest picture's first."""
MAX_PICTURES = 20
DECORATION = re.compile(
    r"logo|icon|sprite|badge|flag|payment|avatar|spinner|pixel|spacer|blank|placeholder|loading|banner|rating|stars"
    r"|button|btn|arrow|share|social|track|captcha"
)
"""What shops call pictures of no product."""
PICTURE_FILE = re.compile(r"\.(?:jpe?g|png|webp|avif)(?:$|[?#])", re.IGNORECASE)
MIN_SIZE_PX = 100
MIN_WORD = 4
"""Letters of a word that names something, if a title has one."""
MAX_TEXT = 500


def loose_pictures(page: Page) -> list[str]:
    """Return the addresses of elements marked as the page's `image` outside of any item."""
    elements = page.tree.xpath("//*[@itemprop='image' and not(ancestor-or-self::*[@itemscope])]")
    return [address for element in elements[:MAX_PICTURES] if (address := _address(element))]


def main_pictures(page: Page, title: str) -> list[str]:
    """Return the addresses of the pictures of a page's product, as the page writes them; [] if none is plain.

    These are the ones marked so and those nearest to the heading that have a word of it in their text or address;
    else the page's own picture (`og:image`); else the only one nearest to the heading, if it has no other text.
    """
    marked = loose_pictures(page)
    elements = [element for element in page.tree.iter("img") if is_large(element) and _address(element)]
    words = telling_words(title)
    elements = [element for element in elements if not _leads_away(element)]
    named = [element for element in elements if words & words_of(_texts(element))]
    named = nearest(page, title, named, may_repeat=True)
    if found := [*marked, *map(_address, named)]:
        return list(dict.fromkeys(found))[:MAX_PICTURES]
    if own := page.metas.get("og:image"):
        return [own]
    closest = nearest(page, title, elements)
    addresses = dict.fromkeys(map(_address, closest))
    return list(addresses) if len(addresses) == 1 and not closest[0].get("alt", "").strip() else []


def _leads_away(element: lxml.html.HtmlElement) -> bool:
    """Return whether a picture is a link to another page, not to a larger picture."""
    link = next(element.iterancestors("a"), None)
    address = (link.get("href") or "#").strip() if link is not None else "#"
    return not address.startswith(("#", "javascript:")) and not PICTURE_FILE.search(address)


def _texts(element: lxml.html.HtmlElement) -> str:
    return f"{element.get('alt', '')} {element.get('title', '')} {unquote(_address(element)).rpartition('/')[2]}"


def telling_words(title: str) -> set[str]:
    """Return the words of a title that may tell its product from others: the long ones, if it has any."""
    words = words_of(title)
    return {word for word in words if len(word) >= MIN_WORD or word > FIRST_UNSPACED} or words


def words_of(text: str) -> set[str]:
    """Return the words of a text; of scripts without spaces, pairs of letters."""
    words = plain_key(text[:MAX_TEXT]).split()
    return {*words, *(word[at : at + 2] for word in words if word > FIRST_UNSPACED for at in range(len(word) - 1))}


def _address(element: lxml.html.HtmlElement) -> str:
    addresses = (element.get(name) or "" for name in ADDRESSES)
    return next(
        (address for address in addresses if re.search("[./]", address) and not address.startswith("data:")), ""
    )


def is_large(element: lxml.html.HtmlElement) -> bool:
    """Return whether a picture may be a product's: no decoration by its name, and not small by its size."""
    sizes = [element.get(name, "").removesuffix("px") for name in ("width", "height")]
    if any(size.isdecimal() and int(size[:6]) < MIN_SIZE_PX for size in sizes):
        return False
    address = _address(element)
    names = f"{element.get('class', '')} {element.get('id', '')} {address.rpartition('/')[2]}"[:500].lower()
    return not DECORATION.search(names) and not address.lower().partition("?")[0].endswith((".svg", ".gif"))
