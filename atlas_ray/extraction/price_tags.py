"""Prices as a page shows them, in elements that are called prices."""

import re
from itertools import islice

import lxml.html

from atlas_ray.extraction.decimals import price_text
from atlas_ray.extraction.offers import Offer
from atlas_ray.extraction.page import Page
from atlas_ray.extraction.vicinity import MAX_FOUND, own
from atlas_ray.formats.prices import parse_currency, parse_price, read_price

PRICE = re.compile(r"price|preis|prix|preci|prezzo|preço|preco|cena")
FORMER = re.compile(
    r"(?<![a-z])(?:old|was(?![a-z]))|former|original|regular|before|previous|list-?price|strike"
    r"|struck|crossed|through|rrp|msrp|uvp|recommended|statt|barr[eé]|anterior|antes|avant|ancien"
)
"""What shops call a price that they do not ask any more."""
OTHER = re.compile(r"ship|deliver|versand|livraison|unit|base-?price|grund|saving|month|install")
"""Class names of elements that hold prices of something else."""
OTHER_WORDS = re.compile(
    rf"{OTHER.pattern}|{FORMER.pattern}|\bsav(?:e|ed|ings?)\b|total|\b(?:cart|basket|bag|spar|gratis|free)\b"
)
"""What they write before these."""
NUMBER = re.compile(r"\d(?:[\d.,'’\s]{0,20}\d)?")
TAGS = ("span", "div", "p", "strong", "b", "ins", "del", "s", "em", "td", "dd", "h2", "h3", "h4", "bdi", "li")
SIGN = re.compile(r"[$€£¥₹₽₩₪₺₴₫₸₱฿円元원]|\b(?:[A-Z]{3}|Rs|kr|zł|Kč|lei|Ft|руб)\b|(?<=\d)(?:kr|zł|Kč)")
"""Of a currency, beside a number."""
DIGIT = re.compile(r"\d")
INLINE = ("span", "b", "strong", "em", "i", "ins", "font", "bdi", "small", "label")
MAX_BEFORE = 200
"""Largest number of characters before a price in its line."""
MAX_TEXT = 40
MAX_INNER = 60
"""Largest number of elements inside the element of a price."""
MAX_ELEMENTS = 30_000
MAX_WORDS = 2
MAX_TEXTS = 8
MAX_OFFERS = 10


def shown_price(page: Page, title: str) -> Offer:
    """Return the price, with its currency, that is the only one a page shows for its product; else an empty offer."""
    tags = list(islice(filter(_is_tag, page.tree.iter(*TAGS)), MAX_FOUND + 1))
    if len(tags) > MAX_FOUND:
        return Offer()
    found = {element: _offer(element) for element in tags if not _is_former(element) and not _is_other(element)}
    around = {outer for element, offer in found.items() if offer for outer in element.iterancestors()}
    offers = {found[element] for element, _ in own(page, title, found) if element not in around}
    # One that cannot be read, `12<sup>99</sup>`, may be the price as well.
    prices = {offer.price if offer else None for offer in offers}
    currencies = {offer.currency for offer in offers if offer and offer.currency}
    return Offer(prices.pop(), currencies.pop()) if len(prices) == len(currencies) == 1 else Offer()


def price_tags(page: Page) -> list[tuple[lxml.html.HtmlElement, Offer]]:
    """Return the elements that show a price and nothing else: called a price, or with a currency's sign.

    Former prices are left out, and elements around another one; of a page of very many, all. The currency is
    None for a sign of several.
    """
    offers: dict[lxml.html.HtmlElement, Offer] = {}
    for element in islice(page.tree.iter(*TAGS), MAX_ELEMENTS):
        if not OTHER.search(_names(element)) and not _is_former(element) and (offer := _signed_offer(element)):
            offers[element] = offer
        if len(offers) > MAX_FOUND:
            return []
    offers = {element: offer for element, offer in offers.items() if not _is_other(element)}
    around = {outer for element in offers for outer in element.iterancestors()}
    return [(element, _with_currency(element, offers)) for element in offers if element not in around]


def _with_currency(element: lxml.html.HtmlElement, offers: dict[lxml.html.HtmlElement, Offer]) -> Offer:
    """Return the offer of a price tag, with the currency of the same price in an element around it."""
    for outer in (element, *element.iterancestors()):
        offer = offers.get(outer)
        if offer is None or offer.price != offers[element].price:
            break
        if offer.currency:
            return offer
    return offers[element]


def _signed_offer(element: lxml.html.HtmlElement) -> Offer | None:
    if _is_large(element):
        return None
    texts = list(islice(element.itertext(), MAX_TEXTS + 1))
    if len(texts) > MAX_TEXTS or sum(map(len, texts)) > 8 * MAX_TEXT or not any(map(DIGIT.search, texts)):
        return None
    text = price_text(element).rstrip("* ")
    if not _is_price(text) or (not PRICE.search(_names(element)) and not SIGN.search(text)):
        return None
    price = read_price(text)
    return Offer(*price) if price and price[0] else None


def current_price(page: Page, stated: float) -> float | None:
    """Return the price that is asked if microdata states one that the same offer shows as a former one.

    That is the only other price within the offer's element, and a lower one.
    """
    for holder in islice(page.tree.iterfind(".//*[@itemprop='offers']"), MAX_OFFERS):
        tags = islice(filter(_is_tag, holder.iter(*TAGS)), MAX_FOUND)
        offers = [(_is_former(element), offer.price) for element in tags if (offer := _offer(element))]
        former = {price for is_former, price in offers if is_former}
        asked = {price for is_former, price in offers if not is_former}
        if former == {stated} and len(asked) == 1 and (price := asked.pop()) is not None and price < stated:
            return price
    return None


def _is_tag(element: lxml.html.HtmlElement) -> bool:
    names = _names(element)
    if not PRICE.search(names) or OTHER.search(names) or _is_large(element):
        return False
    return any(re.search(r"\d", text) for text in islice(element.itertext(), MAX_TEXTS))


def _offer(element: lxml.html.HtmlElement) -> Offer | None:
    """Return what a price tag says: one number and hardly a word."""
    if len(list(islice(element.itertext(), MAX_TEXTS + 1))) > MAX_TEXTS:
        return None
    text = price_text(element).rstrip("* ")
    if not _is_price(text):
        return None
    price, currency = parse_price(text, by_machine=False), parse_currency(text)
    if not currency and re.search(r"[^\d.,'’\s-]", text):  # `$ 5` is of many currencies
        return None
    return Offer(price, currency) if price else None


def _is_other(element: lxml.html.HtmlElement) -> bool:
    """Return whether the words of a price, or before it in its line, say that it is another, or are prose."""
    if OTHER_WORDS.search(price_text(element).lower()):
        return True
    line = element
    while (parent := line.getparent()) is not None and parent.tag in INLINE and not _text_before(line):
        line = parent
    before = _text_before(line)
    if not before or parent is None or parent.tag == "body":
        return False
    is_prose = len(re.findall(r"[^\W\d_]{2,}", before)) > MAX_WORDS and not before.endswith((":", "："))
    return is_prose or bool(OTHER_WORDS.search(before))


def _text_before(element: lxml.html.HtmlElement) -> str:
    """Return the words of a line before an element in it, in small letters."""
    parent = element.getparent()
    texts: list[str] = []
    for sibling in islice(element.itersiblings(preceding=True), MAX_TEXTS):
        texts.insert(0, sibling.tail or "")
        if sibling.tag not in INLINE or _is_tag(sibling):
            return " ".join("".join(texts).split()).lower()[-MAX_BEFORE:]
        texts.insert(0, "".join(islice(sibling.itertext(), MAX_TEXTS)))
    texts.insert(0, (parent.text or "") if parent is not None else "")
    return " ".join("".join(texts).split()).lower()[-MAX_BEFORE:]


def _is_large(element: lxml.html.HtmlElement) -> bool:
    """Return whether an element holds too many others for a price."""
    return next(islice(element.iter(), MAX_INNER, None), None) is not None


def _is_price(text: str) -> bool:
    """Return whether a text may be a price: one number and hardly a word, not that of a month or of several pieces."""
    if len(text) > MAX_TEXT or re.search(r"[/%+*]|\d\s*[xX×]", text):
        return False
    return len(NUMBER.findall(text)) == 1 and len(re.findall(r"[^\W\d_]{2,}", text)) <= MAX_WORDS


def _names(element: lxml.html.HtmlElement) -> str:
    return f"{element.get('class', '')} {element.get('id', '')}"[:300].lower()


def _is_former(element: lxml.html.HtmlElement) -> bool:
    around = (element, *islice(element.iterancestors(), 2))
    return any(one.tag in ("del", "s", "strike") for one in around) or bool(FORMER.search(_names(element)))
