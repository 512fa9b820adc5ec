"""Prices of several elements as one text: `19<sup>99</sup>` is 19.99."""

import re
from collections.abc import Iterator

import lxml.html
from price_parser import Price

from atlas_ray.extraction.page import clean
from atlas_ray.extraction.visibility import seen_texts
from atlas_ray.formats.prices import parse_currency

RAISED_TAGS = ("sup", "sub", "small")
RAISED_CLASS = re.compile(r"cents?(?![a-z])|centimes|centavos|decimal|fraction|pence|penny|groszy|kopeck|kopeyk|minor")
"""Class names of the element that holds the decimals."""
DECIMALS = re.compile(r"([^\W\d_]{0,3}|[^\w\s.,-]{0,3})\s*([.,]?)(\d{2,3})(?:[.,]?-)?\s*([^\d.,]{0,5})")
NOTE = re.compile(r"[\d*†]{1,2}\)?")
"""A raised sign that leads to a footnote."""
WHOLE = re.compile(r"(.*\d)([.,]?)(\s*[^\d.,]{0,4})", re.DOTALL)
WITH_DECIMALS = re.compile(r"\d[.,]\d{1,2}$")
MAX_PIECES = 100


def price_text(element: lxml.html.HtmlElement) -> str:
    """Return the text of a price that a reader sees, decimals in an element of their own put after a separator."""
    text = ""
    for number, (piece, is_raised) in enumerate(_pieces(element)):
        if number >= MAX_PIECES:
            break
        whole = WHOLE.fullmatch(text) if is_raised else None
        cents = DECIMALS.fullmatch(piece)
        signs = f"{cents[1]} {cents[4]}".strip() if cents else ""
        if re.search(r"[^\W\d_]", signs) and not Price.fromstring(signs).currency and not parse_currency(signs):
            cents = None  # of pieces, or of something else
        if whole is None:
            text = f"{text} {piece}" if text and not re.fullmatch(r"[.,]", piece) else text + piece
        elif not whole[2] and WITH_DECIMALS.search(whole[1]):
            text += "" if NOTE.fullmatch(piece) else f" {piece}"
        elif cents:
            separator = whole[2] or cents[2] or ("," if re.search(r"\.\d{3}$", whole[1]) else ".")
            text = f"{whole[1]}{separator}{cents[3]}{whole[3]} {signs}"
        elif re.fullmatch(r"[.,]", piece):
            text = whole[1] + piece + whole[3]
        elif not NOTE.fullmatch(piece):
            text += f" {piece}"
    return clean(text) or clean(element.text_content())


def _pieces(element: lxml.html.HtmlElement) -> Iterator[tuple[str, bool]]:
    """Yield the texts that readers see, each with whether it stands in an element for decimals."""
    for text, owner in seen_texts(element):
        if piece := clean(text):
            yield piece, _is_raised(owner, element)


def _is_raised(owner: lxml.html.HtmlElement, top: lxml.html.HtmlElement) -> bool:
    while owner is not top and owner is not None:
        if owner.tag in RAISED_TAGS or RAISED_CLASS.search(owner.get("class", "")[:100].lower()):
            return True
        owner = owner.getparent()
    return False
