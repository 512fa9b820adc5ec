"""The breadcrumb of a page: the names from the shop's front page down to the product."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

import lxml.etree
import lxml.html

from atlas_ray.extraction.page import FIRST_UNSPACED, Page, clean, host_of, is_front, plain_key, text_of
from atlas_ray.extraction.structured import Item, StructuredData, plain
from atlas_ray.extraction.visibility import is_hidden, seen_texts

Breadcrumb = tuple[str, ...]
Crumb = tuple[str, str | None]  # a name, and where it leads
MAX_NAMES = 15
MAX_NAME = 200
MAX_ELEMENTS = 300
"""Largest number of elements of a breadcrumb; an element with more is a menu or the whole page."""
MAX_PAGE_ELEMENTS = 30_000
"""Largest number of elements of a page that are searched for links with arrows between them."""
MAX_MARKED = 50
"""Largest number of elements marked as breadcrumbs that are read."""
HOME = frozenset(
    """
    home|homepage|home page|start|startseite|startsida|hem|hjem|forside|accueil|page d'accueil|inicio|início|
    página inicial|portada|home-page|pagina iniziale|strona główna|hlavní strana|domů|domov|úvod|domača stran|početna|
    naslovnica|acasă|acasa|etusivu|avaleht|esileht|sākums|pagrindinis|kezdőlap|kezdőoldal|kezdő oldal|főoldal|αρχική|
    начало|главная|головна|anasayfa|ana sayfa|דף הבית|עמוד הבית|الرئيسية|الصفحة الرئيسية|
    首页|首頁|ホーム|トップ|홈|trang chủ|beranda|หน้าแรก
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)
ARROW = re.compile(r"\s{0,99}(?:[-=]{0,3}>|»|›|→|▸|▶|⟩|❯|::)+\s*")
"""Signs that separate names everywhere."""
BAR = re.compile(r"(?<=\s)[/|\\](?=\s)")
"""Signs that separate names if the whole breadcrumb is one text; otherwise they are part of a name."""
SIGNS = re.compile(r"[\W_]+")
MARKED = re.compile(r"bread[-_ ]?c?rumb|(?<![^\W_])crumbs?(?![^\W_])", re.IGNORECASE)
MARKS = ("class", "id", "aria-label", "itemtype")
CONTAINERS = "//*[({}) and ({})]".format(
    " or ".join(f"contains(@{name}, '{part}')" for name in MARKS for part in ("rumb", "RUMB")),
    " or ".join(
        f"self::{tag}"
        for tag in (
            "nav", "ol", "ul", "div", "p", "section", "span", "table", "tbody", "tr", "td", "dl", "header", "font",
            "center", "aside", "small", "strong", "b",
        )
    ),
)  # fmt: skip
"""Elements that may be marked as breadcrumbs."""
WRAPPED = re.compile(r"(?:itemprop|property)\s{0,5}=\s{0,5}[\"']?(?:schema:)?breadcrumb\b")
WRAPPERS = "//*[({}) and not(@itemscope or @typeof or @content)]".format(
    " or ".join(f"@itemprop='{name}' or @property='{name}'" for name in ("breadcrumb", "schema:breadcrumb"))
)
"""Elements whose text is a breadcrumb, and how a page tells that it may have one, which takes less time."""
EDGES = re.compile(r"^(?:[\s>»›→▸▶⟩❯←«‹❮◀◄/|:•·–—\\~]|-\s)+|[\s>»›→▸▶⟩❯←«‹❮◀◄/|:•·–—\\~-]+$")
"""Signs around a name, which are stripped."""
BACK = re.compile(
    r"(?:go )?back|zurück|retour|volver(?: atrás)?|atrás|voltar|indietro|terug|tillbaka|tilbage|tilbake|takaisin|wstecz"
    r"|powrót|zpět|späť|nazaj|natrag|vissza|înapoi|geri|назад|πίσω|חזרה|رجوع|戻る|返回|뒤로|previous(?: page)?"
    r"|(?:back|return) to (?:the |all )?(?:(?:previous|last) page|(?:search )?results?|search|list(?:ing)?s?|overview"
    r"|shop|store|category|catalog(?:ue)?|products?|home|homepage|top)"
)
"""What leads to where the reader was before."""
BACK_TO = re.compile(
    r"(?:back|return) to (?!school)|zurück zu|retour (?:à|au|aux|vers) |volver a |voltar (?:a|para) |terug naar "
)
"""The same at the beginning or the end of a breadcrumb, before a name."""
MENU = re.compile(
    r"drop-?down[-_]*(?:menu|content|list|body|item|panel)|sub-?(?:menu|nav|list)|fly-?out|pop-?over|pop-?up|tooltip"
    r"|mega-?menu|(?:^|[-_ ])(?:menu|siblings)(?:$|[-_ ])"
)
"""What shops call the lists of other categories that open at a crumb."""
MENU_HOLDER = re.compile(r"drop-?down|has-?(?:menu|child|sub)|menu|toggle")
MENU_ROLES = ("menu", "listbox", "tooltip", "dialog")
BLOCKS = ("ul", "ol", "dl", "div", "nav", "section", "table", "menu", "span")
UNREAD = ("script", "style", "noscript", "template", "svg", "select", "datalist", "dialog", "button")
MAX_SIGN = 9
"""Characters of an arrow that is drawn as a picture."""
MAX_BETWEEN = 6
"""Texts between two links of a breadcrumb."""


def find_breadcrumb(page: Page, data: StructuredData, title: str | None = None) -> tuple[Breadcrumb, str]:
    """Return a page's breadcrumb and where it is from.

    Structured data comes first; what a reader sees takes its place if it begins with the same
    names and goes on. A leading "Home" is left out, and so is the product itself at the end: a name
    that leads to this page, or begins with the title.

    Args:
        page: The page.
        data: Its structured data.
        title: The product's title.

    Returns:
        The names, () without any, and one of json-ld, microdata, rdfa, markup, or "".
    """
    best: list[Crumb] = []
    origin = ""
    for item_origin, candidate in _structured(data):
        crumbs = _tidy(candidate, page)
        if len(crumbs) > len(best) and origin in ("", item_origin):
            best, origin = crumbs, item_origin
    for candidate in _marked_up(page):
        crumbs = _tidy(candidate, page)
        if len(crumbs) > len(best) and _names(crumbs)[: len(best)] == _names(best):
            best, origin = crumbs, origin or "markup"
            break
    if title and best and _is_product(best[-1], page, title):
        del best[-1]
    return _names(best), origin if best else ""


def tidy_names(names: Iterable[str], page: Page, title: str) -> Breadcrumb:
    """Return a breadcrumb that a selector has found, without a leading "Home" and without the product."""
    crumbs = _tidy(((name, None) for name in names), page)
    if crumbs and _is_product(crumbs[-1], page, title):
        del crumbs[-1]
    return _names(crumbs)


def category_names(item: Item) -> list[str]:
    """Return the names in a product's `category`: a path as one text, the longest of several, or a list of names.

    Ids of other taxonomies (Google's `1604`) and addresses are none.
    """
    values = (
        value.text("name", "@value") if isinstance(value, Item) else plain(value) for value in item.values("category")
    )
    texts = [text for text in values if text and re.search(r"[^\W\d_]", text) and "://" not in text]
    paths = [split_names(text) if ARROW.search(text) else re.split(r"\s*[/|\\]\s*", text) for text in texts]
    longest = max(paths, key=len, default=[])
    return longest if len(longest) > 1 else [name for path in paths for name in path]


def split_names(text: str) -> list[str]:
    """Split a breadcrumb written as one text: `Women > Shoes`, `Women / Shoes`."""
    parts = ARROW.split(text) if ARROW.search(text) else BAR.split(text)
    return [name for part in parts if (name := clean(part))]


def _names(crumbs: Iterable[Crumb]) -> Breadcrumb:
    return tuple(name for name, _ in crumbs)


def _tidy(crumbs: Iterable[Crumb], page: Page) -> list[Crumb]:
    """Return the names of categories: without signs around them, links back, and what leads up to the front page."""
    named = [(EDGES.sub("", clean(name)), address) for name, address in crumbs]
    kept = [crumb for crumb in named if 0 < len(crumb[0]) <= MAX_NAME and re.search(r"\w", crumb[0])]
    kept = [crumb for crumb in kept if not BACK.fullmatch(crumb[0].casefold())]
    for place in (-1, 0):
        if len(kept) > 1 and BACK_TO.match(kept[place][0].casefold()):
            del kept[place]
    homes = [place for place, crumb in enumerate(kept) if _is_home(crumb, page, place)]
    first = homes[0] if homes else None
    # A shop for the home has a category `Home`: the second of that name is one, unless it leads to the front page.
    homes = [place for place in homes if place == first or _is_front(kept[place][1], page)]
    if len(kept) > 1 and homes and homes[-1] == len(kept) - 1:
        del kept[homes.pop()]
    if homes:
        kept = kept[homes[-1] + 1 :]
    if kept and _is_shop(kept[0][0], page) and (not homes or _is_front(kept[0][1], page)):
        del kept[0]
    return kept[:MAX_NAMES]


def _is_home(crumb: Crumb, page: Page, place: int) -> bool:
    """Return whether a crumb is the front page's: by its name at the beginning, or if nothing says another address."""
    name, address = crumb
    return name.casefold() in HOME and (place == 0 or _is_front(address, page) or (address is None and place <= 2))


def _is_front(address: str | None, page: Page) -> bool:
    url = page.absolute(address) if address else None
    return url is not None and is_front(url) and page.same_site(url)


def _is_shop(name: str, page: Page) -> bool:
    """Return whether a name is the shop's: `OTTO`, `Leroy Merlin`, `HM.com`, `birmingham.craigslist.org`."""
    host, name = host_of(page.url), name.casefold()
    return bool(host) and (_fold(name) in host.split(".") or f".{host}".endswith("." + name.removeprefix("www.")))


def _is_product(crumb: Crumb, page: Page, title: str) -> bool:
    name, address = crumb
    leads_here = address is not None and page.absolute(address) in page.addresses
    if leads_here or _fold(name) == _fold(title):
        return True
    # `Blue mug - 300 ml` is the product `Blue mug`, `Blue mugs` is a category.
    name, title = plain_key(name), plain_key(title)
    return bool(title) and name.startswith(title if title[-1] > FIRST_UNSPACED else f"{title} ")


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _structured(data: StructuredData) -> Iterator[tuple[str, list[Crumb]]]:
    for item in data.items:
        lists = [item] if "breadcrumblist" in item.types else item.items("breadcrumb")
        for found in lists:
            yield found.origin, _crumbs_of_list(found)
        if not lists and item.origin == "json-ld" and (text := item.text("breadcrumb")):
            yield item.origin, [(name, None) for name in split_names(text)]
    wrappers = data.page.tree.xpath(WRAPPERS)[:MAX_MARKED] if WRAPPED.search(data.page.text) else []
    for wrapper in wrappers:
        # As one text, the names would run together; a list that is itself marked has been read.
        if not wrapper.xpath(".//*[contains(@itemtype, 'readcrumb') or contains(@typeof, 'readcrumb')]"):
            yield "microdata" if wrapper.get("itemprop") else "rdfa", _crumbs_in(wrapper)
    for origin in ("microdata", "rdfa"):
        old = [item for item in data.of_type("breadcrumb") if item.origin == origin]
        if old:
            inner = {id(child) for item in old for child in item.items("child")}
            yield origin, [crumb for item in old if id(item) not in inner for crumb in _crumbs_of_chain(item)]


def _crumbs_of_list(item: Item) -> list[Crumb]:
    """Return the entries of a BreadcrumbList, by position."""
    placed: list[tuple[int, Crumb]] = []
    for number, value in enumerate(item.values("itemlistelement"), 1):
        if isinstance(value, str):
            placed.append((number, (value, None)))
            continue
        position = value.text("position") or ""
        target = next(iter(value.items("item")), None)
        address = target.text("@id", "url") if target else value.text("item", "url")
        name = value.text("name") or (target.text("name") if target else None) or value.text("@value")
        if name and not re.match(r"https?://|/", name):
            placed.append((int(position) if re.fullmatch(r"\d{1,4}", position) else number, (name, address)))
    return [crumb for _, crumb in sorted(placed, key=lambda pair: pair[0])]


def _crumbs_of_chain(item: Item | None) -> Iterator[Crumb]:
    """Yield the entries of a data-vocabulary.org Breadcrumb and of its children."""
    for _ in range(MAX_NAMES):
        if item is None:
            return
        if name := item.text("title", "name"):
            yield name, item.text("url")
        item = next(iter(item.items("child")), None)


def _marked_up(page: Page) -> Iterator[list[Crumb]]:
    """Yield the entries of each element that is marked as a breadcrumb, or else of links with arrows between.

    An element that is hidden, such as one for a narrow screen, comes after those that are shown.
    """
    taken: set[lxml.html.HtmlElement] = set()
    hidden: list[list[Crumb]] = []
    looked = 0
    for element in page.tree.xpath(CONTAINERS) if MARKED.search(page.text) else ():
        marks = " ".join(element.get(name, "") for name in MARKS)
        if not MARKED.search(marks) or any(parent in taken for parent in element.iterancestors()):
            continue
        looked += 1
        if looked > MAX_MARKED:
            break
        if 2 <= len(crumbs := _crumbs_in(element)) <= MAX_NAMES:
            taken.add(element)
            if any(map(_is_unseen, (element, *element.iterancestors()))):
                hidden.append(crumbs)
            else:
                yield crumbs
    yield from hidden
    if not taken:
        yield from islice(_chains(page.tree), 1)


def _chains(tree: lxml.html.HtmlElement) -> Iterator[list[Crumb]]:
    """Yield links with nothing but arrows between them, in whatever elements, and the name after the last arrow."""
    chain: list[Crumb] = []
    between: list[str] = []
    for part in _parts(tree, MAX_PAGE_ELEMENTS):
        if isinstance(part, str):
            if (text := clean(part)) and len(between) < MAX_BETWEEN:
                between.append(text)
        elif name := _name_of(part):
            if not (chain and ARROW.fullmatch(" ".join(between))):
                if len(chain) >= 2:
                    yield chain + _last(between)
                chain = []
            chain.append((name, part.get("href")))
            between = []
    if len(chain) >= 2:
        yield chain + _last(between)


def _last(texts: list[str]) -> list[Crumb]:
    """Return the name that follows an arrow after the last link, if there is one."""
    for number, text in enumerate(texts[:2]):
        arrow = ARROW.match(text)
        if number == 0 and not arrow:
            return []
        if name := text[arrow.end() :] if arrow else text:
            return [(name, None)]
    return []


def _crumbs_in(element: lxml.html.HtmlElement) -> list[Crumb]:
    """Return the entries of a breadcrumb's element: one a link, and text between the links split at signs."""
    crumbs: list[Crumb] = []
    for part in _parts(element, MAX_ELEMENTS):
        if isinstance(part, str):
            names = [clean(text) for text in ARROW.split(part)]
            crumbs += [(name, None) for name in names if name and not SIGNS.fullmatch(name)]
        elif name := _name_of(part):
            crumbs.append((name, part.get("href")))
        if len(crumbs) > MAX_NAMES:
            break
    if len(crumbs) == 1 and crumbs[0][1] is None:
        crumbs = [(name, None) for name in split_names(crumbs[0][0])]
    return [(name, address) for name, address in crumbs if not name.endswith(":")]


def _name_of(link: lxml.html.HtmlElement) -> str:
    """Return the text of a link without icons written as words; of an icon alone, its words for screen readers."""
    texts = (text for text, owner in seen_texts(link) if owner.get("aria-hidden") != "true")
    return clean(" ".join(texts)) or text_of(link)


def _parts(element: lxml.html.HtmlElement, most: int) -> Iterator["str | lxml.html.HtmlElement"]:
    """Yield links whole, and the texts outside of links, in order, without menus and what is hidden."""
    skip: lxml.html.HtmlElement | None = None
    for event, node in islice(lxml.etree.iterwalk(element, events=("start", "end")), 2 * most):
        if skip is not None:
            if event == "end" and node is skip:
                skip = None
                yield node.tail or ""
            continue
        if event == "start":
            if node is not element and (node.tag in UNREAD or _is_unseen(node) or _is_menu(node, element)):
                skip = node
            elif node.tag == "a":
                skip = node
                yield node
            elif node.tag == "img":
                yield node.get("alt", "") if ARROW.fullmatch(node.get("alt", "")[:MAX_SIGN]) else ""
            else:
                yield node.text or ""
        elif node is not element:
            yield node.tail or ""


def _is_unseen(element: lxml.html.HtmlElement) -> bool:
    return element.get("aria-hidden") == "true" or is_hidden(element)


def _is_menu(node: lxml.html.HtmlElement, container: lxml.html.HtmlElement) -> bool:
    """Return whether an element of a breadcrumb lists other categories, as opens at a crumb."""
    if node.tag not in BLOCKS or any(node.get(name) is not None for name in ("itemprop", "typeof", "rel")):
        return False
    parent = node.getparent()
    if node.get("role") in MENU_ROLES or (node.tag in ("ul", "ol") and parent.tag in ("li", "details")):
        return True
    named = MENU.search(f"{node.get('class', '')} {node.get('id', '')}"[:300].lower())
    if not named and (node.tag == "span" or parent is container):
        return False
    holder = parent.tag == "li" or MENU_HOLDER.search(parent.get("class", "")[:300].lower())
    if not named and not (holder and node.find(".//a") is not None):
        return False
    # What a breadcrumb's own entries stand in may be called a menu as well: it is no menu before the entry's link.
    before = islice(node.itersiblings(preceding=True), MAX_BETWEEN)
    return any(sibling.tag in ("a", "button") or sibling.find(".//a") is not None for sibling in before)
