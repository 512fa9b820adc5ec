"""The product that a page without structured data shows: one heading, one price and one cart control, a picture."""

import re
from dataclasses import dataclass
from itertools import islice

import lxml.html

from atlas_ray.extraction.page import Page, clean, is_front, text_of
from atlas_ray.extraction.pictures import is_large, main_pictures, telling_words, words_of
from atlas_ray.extraction.price_tags import price_tags
from atlas_ray.extraction.stock import cart_controls
from atlas_ray.extraction.structured import StructuredData
from atlas_ray.extraction.subject import ARTICLE_TYPES, LISTING_TYPES
from atlas_ray.extraction.vicinity import Element, nearest, own
from atlas_ray.extraction.visibility import is_hidden, seen_texts

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
OTHER_PAGES = re.compile(r"article|blog|website:|profile|book|music|video")
"""Types of OpenGraph that are no product's page."""
MAX_HEADINGS = 100
MAX_ELEMENTS = 3000
"""Elements of the block of a price or a control that are looked at."""
MAX_CONTROLS = 3
"""The same control at the top and the bottom, and one that stays on the screen."""
MAX_TITLE = 300
MAX_BETWEEN = 2000
"""Characters between the heading and the price."""
MAX_INNER = 5
"""Elements within a heading or a price."""


@dataclass(frozen=True)
class ShownProduct:
    """A product as a page shows it.

    Attributes:
        title: The page's only heading of the first level.
        price: More than 0.
        currency: ISO 4217; None for a sign that several currencies have.
        pictures: At least one address, as the page writes it.
    """

    title: str
    price: float
    currency: str | None
    pictures: tuple[str, ...]


def shown_product(page: Page, data: StructuredData) -> ShownProduct | None:
    """Return the product of a page that says nothing of it for machines, or None if it is not plain that there is one.

    It is plain if the page has one heading of the first level, and near to it one price and one control that puts
    it into the cart, or says that it is sold out, and a main picture. The price may not stand under another name.
    """
    if is_front(page.url) or OTHER_PAGES.search(page.metas.get("og:type", "").lower()):
        return None
    if data.of_type(*LISTING_TYPES, *ARTICLE_TYPES):
        return None
    headings = [element for element in islice(page.tree.iter("h1"), MAX_HEADINGS) if _is_shown(element)]
    titles = {text_of(element) for element in headings} - {""}
    title = titles.pop() if len(titles) == 1 else ""
    if not title or len(title) > MAX_TITLE:
        return None
    heading = next(element for element in headings if text_of(element) == title)
    states = cart_controls(page)
    controls = [element for element, _ in own(page, title, states)]
    if not 0 < len(controls) <= MAX_CONTROLS or len({states[element] for element in controls}) > 1:
        return None
    offers = dict(price_tags(page))
    tags = nearest(page, title, offers)
    prices = {(offers[element].price, offers[element].currency) for element in tags}
    if len(prices) != 1:
        return None
    if any(_has_own_name(element, heading) or not _is_near(element, heading) for element in tags):
        return None
    pictures = main_pictures(page, title)
    price, currency = prices.pop()
    if not pictures or price is None:
        return None
    return ShownProduct(title, price, currency, tuple(pictures))


def _is_shown(element: lxml.html.HtmlElement) -> bool:
    return not any(map(is_hidden, (element, *element.iterancestors())))


def _has_own_name(element: Element, heading: Element) -> bool:
    """Return whether a price stands under another name than the page's: in a tile, or a teaser.

    That is a heading before it, a link to another page around it, a picture or a heading, a link before it whose words
    are more than the heading's, or pictures of which none has a word of the heading in its text.
    """
    title, telling = words_of(text_of(heading)), telling_words(text_of(heading))
    alts: list[set[str]] = []
    above = {*heading.iterancestors()}
    block = element
    for parent in element.iterancestors():
        if parent in above:
            break
        if parent.tag == "a" and _leads(parent):
            return True
        block = parent
    is_before = True
    for node in islice(block.iter(), MAX_ELEMENTS):
        is_before = is_before and node is not element
        if node.tag in HEADINGS and is_before and text_of(node):
            return True
        if node.tag == "a" and _leads(node):
            words = words_of(text_of(node))
            if next(node.iter("img", *HEADINGS), None) is not None or (is_before and words & title and words - title):
                return True
        if node.tag == "img" and is_large(node) and (words := words_of(node.get("alt", ""))):
            alts.append(words)
    return bool(alts) and not any(words & telling for words in alts)


def _is_near(element: Element, heading: Element) -> bool:
    """Return whether hardly more than a short description stands between a heading and a price."""
    above = {*heading.iterancestors()}
    common = next((parent for parent in element.iterancestors() if parent in above), None)
    between, marks = 0, {heading, element}
    for text, owner in seen_texts(common) if common is not None else ():
        mark = next((node for node in (owner, *islice(owner.iterancestors(), MAX_INNER)) if node in marks), None)
        marks.discard(mark)
        if not marks or between > MAX_BETWEEN:
            break
        between += len(text.strip()) if len(marks) == 1 else 0
    return between <= MAX_BETWEEN


def _leads(link: Element) -> bool:
    address = clean(link.get("href", ""))
    return bool(address) and not address.startswith(("#", "javascript:"))
