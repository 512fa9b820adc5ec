"""The vicinity of a product's name on its page, without lists of other products."""

import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice, takewhile
from typing import TypeAlias

import lxml.html

from atlas_ray.extraction.page import Page, plain_key, text_of

Element: TypeAlias = lxml.html.HtmlElement
Place = tuple[Element, str, str | None]
"""Where alike elements may repeat: what holds them, their tag and class."""
MAX_FOUND = 200
MAX_HEADINGS = 30
ASIDE = re.compile(
    r"relat|recommend|similar|up-?sell|cross-?sell|also|recent|histor|bundle|accessor|suggest|compar|quick-?view"
    r"|reco(?:s|$|[-_ ])|mini-?(?:cart|basket|bag)"
)
"""What shops call the places of other products in their pages' code."""
SLIDER = re.compile(r"carousel|slider|swiper|slick")
"""The same, but pictures of one product stand in such places as well."""
HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden")


def nearest(page: Page, title: str, elements: Iterable[Element], *, may_repeat: bool = False) -> list[Element]:
    """Return those of some elements that stand nearest to the heading of a page's product.

    Nearest are those in the smallest element that holds the heading and any of them; see `own`.
    """
    found = own(page, title, elements, may_repeat=may_repeat)
    least = min((distance for _, distance in found), default=0)
    return [element for element, distance in found if distance == least]


def own(page: Page, title: str, elements: Iterable[Element], *, may_repeat: bool = False) -> list[tuple[Element, int]]:
    """Return those of some elements that belong to the page's product, each with its distance from the heading.

    Left out is what is hidden, or in a place for other products: one that is named so, or that
    repeats beside itself as the tiles of a list do. The distance is that from the heading up to the
    smallest element that holds both; without a heading nothing is found. What repeats stays with `may_repeat`, for
    the pictures of a gallery.
    """
    heading = _heading(page, title)
    if heading is None:
        return []
    above = {element: distance for distance, element in enumerate((heading, *heading.iterancestors()))}
    paths: list[tuple[list[Element], list[Place], Element]] = []
    tiles: dict[Place, set[Element]] = defaultdict(set)
    for element in islice(elements, MAX_FOUND):
        chain = [element, *element.iterancestors()]
        path = list(takewhile(lambda inner: inner not in above, chain))
        if not path or len(path) == len(chain):
            continue
        places = [(outer, inner.tag, inner.get("class")) for inner, outer in zip(path[1:], chain[2:], strict=False)]
        for place, inner in zip(places, path[1:], strict=True):
            tiles[place].add(inner)
        paths.append((path, places, chain[len(path)]))
    return [
        (path[0], above[common])
        for path, places, common in paths
        if not any(_is_aside(inner) or (not may_repeat and SLIDER.search(_names(inner))) for inner in path)
        and (may_repeat or all(len(tiles[place]) == 1 for place in places))
    ]


def _heading(page: Page, title: str) -> Element | None:
    """Return the first heading that names the product, or the only one of the first level."""
    name = plain_key(title)
    headings = list(islice(page.tree.iter("h1"), MAX_HEADINGS))
    for element in (*headings, *islice(page.tree.iter("h2"), MAX_HEADINGS)):
        text = plain_key(text_of(element)[:500])
        if text and (name in text or (len(text) >= 10 and text in name)):
            return element
    return headings[0] if len(headings) == 1 else None


def _is_aside(element: Element) -> bool:
    if element.tag in ("template", "noscript", "footer", "nav") or element.get("hidden") is not None:
        return True
    return bool(HIDDEN.search(element.get("style", "")[:300].lower()) or ASIDE.search(_names(element)))


def _names(element: Element) -> str:
    return f"{element.get('class', '')} {element.get('id', '')}"[:300].lower()
