"""Values that a page writes beside a label: `Brand: ACME` in a table, a list or a line."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile

import lxml.html

from atlas_ray.extraction.page import Page, clean, text_of

LABELS = {
    "brand": (
        "brand", "brand name", "make", "manufacturer", "make/manufacturer", "marke", "hersteller", "marque",
        "fabricant", "marca", "fabricante", "produttore", "merk", "fabrikant", "marka", "producent", "značka",
        "výrobce", "kaubamärk", "tootja", "zīmols", "ražotājs", "бренд", "производитель", "märke", "mærke", "merke",
        "tuotemerkki", "márka", "gyártó", "ブランド", "メーカー", "品牌", "브랜드", "제조사", "מותג", "الماركة",
    ),
    "sku": (
        "sku", "product sku", "reference", "item number", "item no", "item #", "item code", "product code",
        "product number", "product id", "article number", "article no", "art. no", "stock code", "artikelnummer",
        "artikel-nr", "art.-nr", "art.nr", "art. nr", "bestellnummer", "bestell-nr", "artikelcode", "productcode",
        "bestelnummer", "référence", "réf", "référence produit", "code article", "code produit", "referencia",
        "referência", "ref", "codice", "codice articolo", "codice prodotto", "código", "código de producto",
        "código del producto", "código do produto", "id produto", "id do produto", "cod produs", "артикул",
        "код товара", "код продукта", "indeks", "kod produktu", "kód produktu", "kód zboží", "katalogové číslo",
        "tootekood", "produkta kods", "prekės kodas", "cikkszám", "ürün kodu", "šifra izdelka", "šifra proizvoda",
        "tuotenumero", "varenummer", "artikelnr", "商品編號", "商品编号", "商品コード", "商品番号", "品番", "상품번호",
    ),
}  # fmt: skip
"""What shops call them in the languages of Europe and East Asia."""
FIELD_OF_LABEL = {label: name for name, labels in LABELS.items() for label in labels}
MAX_LABEL = 30
MAX_VALUE = 80
MAX_TEXTS = 6
"""Largest number of texts in a line; an element with more is no line."""
LINES = (
    re.compile(r"([^:：]{2,30}?)\s*[:：]\s*(\S.*)"),
    re.compile(r"(.{2,30}?)(?:\s+[-–—=|]|\s*[#№])\s*(\S.*)"),
)
"""A label, a sign and a value."""
SIGNS = " .:：-–—=|#№"
TAIL = re.compile(rf"[{re.escape(SIGNS)}]*(\S.*)")
WORDS = re.compile(r"(.{2,30}) (\S+)")
MARK = re.compile(r"sku|(?:product|item|article)[-_]{0,2}(?:sku|code|number|ref|reference)")
"""Class names of the element that holds the product number."""
PAGE_NUMBER = re.compile(r"\d{5,20}")
PARAMETER = re.compile(r"(?:^|&)(?:p|product|item|sku|goods|article)?_?(?:id|no|sku)=(\d{5,20})(?:&|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """The labelled values of a page, read when first asked for."""

    page: Page

    def first(self, name: str) -> str | None:
        """Return the first value that stands beside a label of `brand` or `sku`, a table's before a line's."""
        return next((value for field, value in (*self.in_tables, *self.in_lines) if field == name), None)

    @cached_property
    def number(self) -> str | None:
        """The one number that lines of the page give as the product's; None if they give several or none.

        Rows of a table are left out: beside other properties, it is often the maker's number.
        """
        return _only(value for field, value in self.in_lines if field == "sku")

    @cached_property
    def marked_number(self) -> str | None:
        """The one number that stands in elements named after it, such as `<span class="sku">`."""
        return _only(_marked(self.page))

    @cached_property
    def in_tables(self) -> tuple[tuple[str, str], ...]:
        """Fields and values in cells of tables and terms of lists."""
        return tuple(_fields(_cells(self.page)))

    @cached_property
    def in_lines(self) -> tuple[tuple[str, str], ...]:
        """Fields and values in lines of their own."""
        return tuple(_fields(_lines(self.page)))


def letters(number: str) -> str:
    """Return what two ways of writing a number have in common: its letters and digits."""
    return re.sub(r"[\W_]", "", number).casefold()


def number_in(text: str | None) -> str | None:
    """Return a product's number without prose around it; None for words alone.

    `TE5-1293 Cover for a sofa` is a number and prose, `MODEL 570 EASY II` a number of four words.
    """
    words = (text or "").split()
    first = next((place for place, word in enumerate(words) if re.search(r"\d", word)), None)
    if first is None:
        return text if len(words) == 1 else None
    if len(words) > 2:
        if any(map(_is_prose, words[:first])):
            words = words[first:]
        words = list(takewhile(lambda word: not _is_prose(word), words)) or words[:1]
    return " ".join(words)


def _is_prose(word: str) -> bool:
    """Return whether a word is of letters alone, and small ones after the first."""
    word = re.sub(r"^[\W_]+|[\W_]+$", "", word)
    return word.isalpha() and word[1:].islower()


def _only(numbers: Iterable[str]) -> str | None:
    """Return the number that all of these are, or None."""
    found = {letters(number): number for number in numbers}
    return next(iter(found.values())) if len(found) == 1 else None


def _fields(pairs: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for label, text in pairs:
        name = _field(label)
        value = clean(text) if name else ""
        if name == "sku" and re.search(r"\d", value) and len(value) <= MAX_VALUE:
            yield name, number_in(value) or value
        elif name == "brand" and 0 < len(value) <= MAX_VALUE:
            yield name, value


def _field(label: str) -> str | None:
    label = label.casefold().strip()
    return FIELD_OF_LABEL.get(label) or FIELD_OF_LABEL.get(label.rstrip(SIGNS))


def _cells(page: Page) -> Iterator[tuple[str, str]]:
    for element in page.tree.iter("dt", "th", "td"):
        value = element.getnext()
        if value is not None and value.tag in ("td", "dd") and len(element) < 3:
            label = _line(element)
            if _field(label):
                yield label, text_of(value)


def _lines(page: Page) -> Iterator[tuple[str, str]]:
    """Yield labels and values that are an element's whole text, or a label in an element and what follows that.

    `Ref: 77`, `SKU 77`, `<b>SKU:</b> <i>77</i>`, `<b>Product code - </b>77`.
    """
    for element in page.tree.iter("li", "p", "span", "div", "h3", "h4", "h5", "h6", "strong", "b", "em", "label"):
        # A line of its own, perhaps with label or value in an element within.
        if len(element) > 2 or not (text := _line(element)):
            continue
        matches = [match for line in LINES if (match := line.fullmatch(text)) and _field(match[1])]
        words = WORDS.fullmatch(text)
        if matches:
            yield matches[0][1], matches[0][2]
        elif words and re.search(r"\d", words[2]) and _field(words[1]) == "sku":
            yield words[1], words[2]
        elif _field(text):
            tail = " ".join((element.tail or "")[: 8 * MAX_VALUE].split())
            following = element.getnext()
            has_sign = text[-1] in SIGNS or tail[:1] in tuple(SIGNS)
            if has_sign and (value := TAIL.fullmatch(tail)):
                yield text, value[1]
            elif has_sign and following is not None:
                yield text, _line(following)


def _marked(page: Page) -> Iterator[str]:
    for element in page.tree.iter("span", "p", "div", "dd", "td", "li", "b", "strong"):
        text = (element.text or "").strip() if len(element) == 0 else ""
        if 1 < len(text) <= MAX_LABEL and re.search(r"\d", text) and not re.search(r"\s", text):
            names = (value for name, value in element.items() if name in ("class", "id") or name.startswith("data-"))
            if any(MARK.fullmatch(name) for value in names for name in value[:200].lower().split()):
                yield text


def _line(element: lxml.html.HtmlElement) -> str:
    """Return the text of an element that begins and ends with one line, "" for others."""
    start = element.text or ""
    if len(element) and not start.strip():  # what only wraps another element leaves the line to that
        start = element[0].text or ""
    if not start.strip():
        return ""
    texts = list(islice(element.itertext(), MAX_TEXTS + 1)) if len(element) else [start]
    return "" if len(texts) > MAX_TEXTS else " ".join(" ".join(texts)[: 8 * MAX_VALUE].split())[: 2 * MAX_VALUE]


def number_of(page: Page) -> str | None:
    """Return the number by which a page's address knows its product: `/itm/302474151804`, `?pid=260591`.

    A parameter that is named so, else the longest of five digits or more in the path, from its end.
    """
    path, _, query = (page.addresses[0] if page.addresses else page.url).partition("?")
    if named := PARAMETER.search(query):
        return str(named[1])
    for part in reversed(path.partition("//")[2].split("/")[1:]):
        if numbers := PAGE_NUMBER.findall(part):
            return str(max(numbers, key=len))
    return None
