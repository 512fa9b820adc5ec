"""Availability by the controls of a page, such as the button that puts its product into the cart."""

import re
from collections.abc import Iterator
from itertools import islice

import lxml.html

from atlas_ray.extraction.page import Page
from atlas_ray.extraction.vicinity import nearest

CART = {
    "en": r"add N?to (?:(?:your|my|the) )?(?:shopping )?(?:cart|basket|bag|trolley)",
    "de": r"(?:jetzt |ab )?in (?:den|die) (?:waren|einkaufs)(?:korb|wagen|tasche)|N?in den warenkorb legen"
    r"|N?zum warenkorb hinzufügen",
    "fr": r"(?:ajouter|mettre) N?(?:à (?:mon|votre)|au|dans (?:le|mon|votre)) panier",
    "it": r"(?:aggiungi|metti) N?(?:al|nel) carrello",
    "es": r"(?:añadir|añade|agregar|agrega|poner) N?(?:a la|a mi|a tu|al|en el|en la) (?:carrito|carro|cesta|bolsa)"
    r"(?: de (?:la )?compras?)?",
    "ca": r"afegi[rx]? N?(?:a la|al) (?:cistella|carret)",
    "pt": r"(?:adicionar|incluir|colocar|pôr) N?(?:à|ao|na|no) (?:meu )?(?:carrinho|cest[ao]|sacola)(?: de compras)?",
    "nl": r"(?:voeg N?toe aan|toevoegen aan|in) (?:de |mijn |je |het )?winkel(?:wagen|mand)(?:tje|je)?",
    "sv": r"lägg N?i (?:varukorg|kundvagn|korg|kundkorg)(?:en)?",
    "da": r"(?:læg|tilføj) N?(?:i|til) (?:indkøbs)?kurv(?:en)?",
    "no": r"leg+ N?i (?:handle)?(?:kurv|vogn)(?:en)?",
    "fi": r"(?:lisää N?)?(?:ostos)?(?:koriin|kärryyn)",
    "et": r"lisa N?(?:ostu)?korvi",
    "lv": r"(?:pievienot|ielikt|likt) N?groz(?:ā|am)",
    "lt": r"(?:į|įdėti į|dėti į) (?:prekių )?krepšelį",
    "pl": r"(?:(?:dodaj|wrzuć|włóż) N?)?do koszyka",
    "cs, sk": r"(?:(?:přidat|vložit|dát|pridať|vložiť) N?)?do (?:nákup\w{1,5} )?(?:košík[au]|koše)",
    "sl, hr, sr": r"(?:(?:dodaj|stavi) N?)?(?:u|v) (?:košarico|košaricu|korpu)",
    "hu": r"(?:a )?kosárba(?: teszem| rakom| helyezem| tesz)?",
    "ro": r"adaug[ăa] N?[îi]n co[sșş]",
    "tr": r"sepete (?:ekle|at)",
    "el": r"(?:προσθήκη|προσθέστε|προσθηκη) N?στο καλάθι",
    "ru, uk, bg": r"(?:(?:добавить|положить|додати|добави|купить) N?)?(?:в|до|у) (?:корзину|кошик[а]?|количката)",
    "he": r"(?:הוספה|הוסף|הוסיפו) N?ל(?:סל|עגלה|סל הקניות)",
    "ar": r"(?:أضف|اضف|إضافة) N?(?:إلى|الى|لل|ل)\s?(?:ال)?(?:سلة|عربة)(?: التسوق)?",
    "ja": r"(?:ショッピング|買い物)?(?:カート|かご|カゴ|バッグ)(?:に|へ)(?:入れる|いれる|追加(?:する)?)",
    "zh": r"(?:加入|放入|添加到|加到)(?:購物|购物)(?:車|车|袋|籃|篮)",
    "ko": r"(?:장바구니|카트)(?:에)? ?(?:담기|넣기|추가)",
    "vi": r"thêm N?vào giỏ(?: hàng)?",
    "id": r"tambah(?:kan)? N?ke keranjang",
    "th": r"(?:เพิ่มลง|หยิบใส่|เพิ่มไปยัง|ใส่)(?:ใน)?(?:ตะกร้า|รถเข็น)(?:สินค้า)?",
}
"""What the control says that puts a product into the cart, by language; N is a product's name, or other words."""
SOLD_OUT = (
    r"sold out|(?:currently |temporarily )?(?:out of stock|unavailable)|notify me(?: when .{1,60})?",
    r"e-?mail me when .{1,60}",
    r"(?:leider |derzeit )?(?:ausverkauft|nicht verfügbar|nicht vorrätig|nicht auf lager|vergriffen)|épuisé",
    r"(?:en )?rupture de stock|(?:produit )?indisponible|esaurito|non disponibile|agotado",
    r"sin (?:stock|existencias)|no disponible|esgotado|indisponível|(?:tijdelijk )?uitverkocht",
    r"niet op voorraad|slutsåld|slut i lager|udsolgt|utsolgt|loppuunmyyty|läbi müüdud|izpārdots|išparduota",
    r"wyprzedan[ey]|(?:produkt )?niedostępny|powiadom o dostępności|vyprodáno|není skladem|vypredané",
    r"nie je skladom|rasprodano|razprodano|elfogyott|nincs (?:készleten|raktáron)|stoc epuizat|indisponibil",
    r"tükendi|stokta yok|εξαντλήθηκε|нет в наличии|распродано|сообщить о поступлении|немає в наявності",
    r"אזל מהמלאי|אזל|نفذت الكمية|売り切れ|在庫切れ|品切れ|完売|已售完|售完|售罄|缺貨|缺货|補貨中|(?:일시)?품절",
    r"hết hàng|stok habis|สินค้าหมด",
)
"""Texts of that control for a product that is sold out."""
IN_STOCK = re.compile("|".join(f"(?:{wording})" for wording in CART.values()).replace("N?", "(?:.{1,100}? )?"))
OUT_OF_STOCK = re.compile("|".join(SOLD_OUT))
GONE = re.compile(
    "|".join((*SOLD_OUT, r"(?:not|no longer) (?:in stock|available)|discontinued|\b0 (?:in stock|available)"))
)
"""The same in a sentence."""
SOLD = re.compile(r"sold|verkauft|vendu|venduto|vendido|verkocht|sprzedan[ey]|såld|solgt|продано")
"""Texts over a single item that has been sold."""
LETTER = re.compile(r"[^\W\d_]")
BUTTON = re.compile(r"btn|button|cart|basket|panier|warenkorb|carrello|carrito|koszyk|buy")
"""Class names of links that look like buttons."""
TEXTS = ("value", "aria-label", "title", "alt")
"""Attributes that hold the text of a control."""
MAX_TEXT = 160
MAX_TEXTS = 20
MAX_CONTROLS = 3000
MAX_SHORT_TEXTS = 30_000
"""Of the largest shop pages, which have some thousands."""


def stock(page: Page, title: str) -> str | None:
    """Return `InStock` if a page has a control that puts its product into the cart.

    `OutOfStock` if the control in its place says that there is none; None if there is no such
    control by the product's name, or several that contradict each other.
    """
    states = cart_controls(page)
    found = {states[element] for element in nearest(page, title, states)}
    return found.pop() if len(found) == 1 else None


def cart_controls(page: Page) -> dict[lxml.html.HtmlElement, str]:
    """Return the controls that put something into the cart (`InStock`), and those that say it is sold out."""
    return {element: state for element in islice(_controls(page), MAX_CONTROLS) if (state := _state(element))}


def says_sold_out(page: Page) -> bool:
    """Return whether a page says anywhere, in a short text or at a control, that something cannot be had.

    A control that holds the wordings of both states is a template: the page's scripts show one of them. A page of
    more texts than are looked at counts as one that says so.
    """
    templates: dict[lxml.html.HtmlElement, bool] = {}
    for number, (element, text) in enumerate(_short_texts(page)):
        if number >= MAX_SHORT_TEXTS:
            return True
        said = _said(text)
        if not (GONE.search(said) or SOLD.fullmatch(_bare(said))):
            continue
        control = element if element.tag in ("a", "button") else next(element.iterancestors("a", "button"), None)
        if control is None:
            return True
        if control not in templates:
            texts = islice(control.itertext(), MAX_TEXTS)
            templates[control] = any(IN_STOCK.fullmatch(_bare(_said(text[: 4 * MAX_TEXT]))) for text in texts)
        if not templates[control]:
            return True
    return False


def _short_texts(page: Page) -> Iterator[tuple[lxml.html.HtmlElement, str]]:
    """Yield the texts of a page that are no prose, each with the element that it stands in."""
    for element in page.tree.iter():
        texts = [] if element.tag in ("script", "style", "noscript") else [element.text]
        if element.tag in ("a", "button", "input") or element.get("role") == "button":
            texts += [element.get(name) for name in TEXTS]
        for owner, text in (*((element, text) for text in texts), (element.getparent(), element.tail)):
            if text and owner is not None and len(text) <= MAX_TEXT and not text.isspace():
                yield owner, text


def _said(text: str) -> str:
    """Return a short text without case and white space around its words."""
    return " ".join(text.split())[:MAX_TEXT].casefold()


def _bare(said: str) -> str:
    """Return what a text says without signs or a price around it."""
    first, last = LETTER.search(said), LETTER.search(said[::-1])
    return said[first.start() : len(said) - last.start()] if first and last else ""


def _controls(page: Page) -> Iterator[lxml.html.HtmlElement]:
    for element in page.tree.iter("button", "input", "a", "div", "span"):
        if element.tag == "button" or element.get("role") == "button":
            yield element
        elif element.tag == "input":
            if element.get("type", "").lower() in ("submit", "button", "image"):
                yield element
        elif element.tag == "a" and BUTTON.search(f"{element.get('class', '')} {element.get('id', '')}"[:300].lower()):
            yield element


def _state(control: lxml.html.HtmlElement) -> str | None:
    inner = " ".join(text[:MAX_TEXT] for text in islice(control.itertext(), MAX_TEXTS))
    plain = [_bare(_said(text)) for text in (inner, *(control.get(name, "")[: 4 * MAX_TEXT] for name in TEXTS))]
    if any(map(OUT_OF_STOCK.fullmatch, plain)):
        return "OutOfStock"
    # One that is disabled waits for a size, or for the page's scripts.
    if any(map(IN_STOCK.fullmatch, plain)) and not _is_disabled(control):
        return "InStock"
    return None


def _is_disabled(control: lxml.html.HtmlElement) -> bool:
    disabled = control.get("disabled") is not None or control.get("aria-disabled", "").lower() == "true"
    return disabled or bool(re.search(r"\bdisabled\b", control.get("class", "").lower()))
