"""Values that a page writes beside a label: `Brand: ACME` in a table, a list or a line."""

import re
from collections.abc import Iterator

from atlas_ray.crawl.page import Page, clean, text_of

LABELS = {
    "brand": (
        "brand", "brand name", "make", "manufacturer", "make/manufacturer", "marke", "hersteller", "marque",
        "fabricant", "marca", "fabricante", "produttore", "merk", "fabrikant", "marka", "producent", "značka",
        "výrobce", "kaubamärk", "tootja", "zīmols", "ražotājs", "бренд", "производитель", "märke", "mærke", "merke",
        "tuotemerkki", "márka", "gyártó", "ブランド", "メーカー", "品牌", "브랜드", "제조사", "מותג", "الماركة",
    ),
    "sku": (
        "sku", "item number", "item no", "item #", "product code", "product number", "article number", "article no",
        "art. no", "artikelnummer", "artikel-nr", "art.-nr", "art.nr", "bestellnummer", "référence", "réf",
        "code article", "referencia", "referência", "ref", "codice", "codice articolo", "codice prodotto", "código",
        "артикул", "код товара", "indeks", "kod produktu", "kód produktu", "katalogové číslo", "tootekood", "cikkszám",
        "tuotenumero", "varenummer", "商品編號", "商品コード", "品番", "상품번호",
    ),
}  # fmt: skip
"""What shops call them in the languages of Europe and East Asia."""
FIELD_OF_LABEL = {label: name for name, labels in LABELS.items() for label in labels}
MAX_VALUE = 80
LINE = re.compile(r"([^:：]{2,30}?)\s*[:：]\s*(\S.*)")
PAGE_NUMBER = re.compile(r"\d{5,20}")
PARAMETER = re.compile(r"(?:^|&)(?:p|product|item|sku|goods|article)?_?(?:id|no|sku)=(\d{5,20})(?:&|$)", re.IGNORECASE)


def labelled(page: Page) -> dict[str, str]:
    """Return the brand and the SKU that stand beside a label on a page, the first of each."""
    found: dict[str, str] = {}
    for label, value in _pairs(page):
        name = FIELD_OF_LABEL.get(label.casefold().rstrip(" .:："))
        if name and value and len(value) <= MAX_VALUE and (name != "sku" or re.search(r"\d", value)):
            found.setdefault(name, value)
            if len(found) == len(LABELS):
                break
    return found


def _pairs(page: Page) -> Iterator[tuple[str, str]]:
    """Yield labels and values: cells of a table, terms of a list, lines with a colon."""
    for element in page.tree.iter("dt", "th", "td"):
        value = element.getnext()
        if value is not None and value.tag in ("td", "dd") and len(element) < 3:
            yield text_of(element)[:MAX_VALUE], text_of(value)
    for element in page.tree.iter("li", "p", "span", "div"):
        # A line of its own: a text, perhaps with its value in an element within.
        if len(element) <= 1 and (element.text or "").strip() and (match := LINE.fullmatch(_line(element))):
            yield match[1], match[2]


def _line(element: object) -> str:
    return clean(" ".join(element.itertext()))[: 2 * MAX_VALUE]  # type: ignore[attr-defined]


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
