"""The breadcrumb of a page: the names from the shop's front page down to the product."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

import lxml.etree
import lxml.html

from atlas_ray.crawl.page import Page, clean, host_of, text_of
from atlas_ray.crawl.structured import Item, StructuredData

Breadcrumb = tuple[str, ...]
Crumb = tuple[str, str | None]  # a name, and where it leads
MAX_NAMES = 15
MAX_NAME = 200
MAX_ELEMENTS = 300
"""Elements of a breadcrumb; what has more is a menu or the whole page."""
MAX_MARKED = 50
"""Elements marked as breadcrumbs that are looked at."""
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
ARROW = re.compile(r"\s*(?:>|»|›|→|▸|▶|⟩|❯|::)+\s*")
"""Between names, wherever it stands."""
BAR = re.compile(r"\s+[/|\\]\s+")
"""Between names where the whole breadcrumb is one text; elsewhere a part of names."""
SIGNS = re.compile(r"[\W_]+")
MARKED = re.compile(r"bread[-_ ]?c?rumb|(^|[-_ ])crumbs?($|[-_ ])", re.IGNORECASE)
CONTAINERS = (
    "//*[(self::nav or self::ol or self::ul or self::div or self::p or self::section or self::span or self::table"
    " or self::dl or self::header) and (@class or @id or @aria-label or @itemtype)]"
)


def find_breadcrumb(page: Page, data: StructuredData, title: str | None = None) -> tuple[Breadcrumb, str]:
    """Return a page's breadcrumb and where it is from.

    Structured data comes first; what a reader sees takes its place where it begins with the same
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
    for item_origin, found in _structured(data):
        crumbs = _tidy(found, page)
        if len(crumbs) > len(best) and origin in ("", item_origin):
            best, origin = crumbs, item_origin
    for found in _marked_up(page):
        crumbs = _tidy(found, page)
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


def split_names(text: str) -> list[str]:
    """Split a breadcrumb written as one text: `Women > Shoes`, `Women / Shoes`."""
    parts = ARROW.split(text) if ARROW.search(text) else BAR.split(text)
    return [name for part in parts if (name := clean(part))]


def _names(crumbs: Iterable[Crumb]) -> Breadcrumb:
    return tuple(name for name, _ in crumbs)


def _tidy(crumbs: Iterable[Crumb], page: Page) -> list[Crumb]:
    kept = [(clean(name).strip(" >»›/|:"), address) for name, address in crumbs]
    kept = [(name, address) for name, address in kept if name and len(name) <= MAX_NAME]
    if kept and (kept[0][0].casefold() in HOME or _is_shop(kept[0][0], page)):
        del kept[0]
    return kept[:MAX_NAMES]


def _is_shop(name: str, page: Page) -> bool:
    """Tell whether a name is the shop's: `OTTO`, `Leroy Merlin`, `HM.com`, `birmingham.craigslist.org`."""
    host, name = host_of(page.url), name.casefold()
    return bool(host) and (_fold(name) in host.split(".") or f".{host}".endswith("." + name.removeprefix("www.")))


def _is_product(crumb: Crumb, page: Page, title: str) -> bool:
    name, address = crumb
    leads_here = address is not None and page.absolute(address) in page.addresses
    return leads_here or _fold(name).startswith(_fold(title))


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _structured(data: StructuredData) -> Iterator[tuple[str, list[Crumb]]]:
    for item in data.items:
        lists = [item] if "breadcrumblist" in item.types else item.items("breadcrumb")
        for found in lists:
            yield found.origin, _crumbs_of_list(found)
        if not lists and (text := item.text("breadcrumb")):
            yield item.origin, [(name, None) for name in split_names(text)]
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
    """Yield the entries of each element that is marked as a breadcrumb, or else of links with arrows between."""
    taken: set[lxml.html.HtmlElement] = set()
    looked = 0
    for element in page.tree.xpath(CONTAINERS):
        marks = " ".join(element.get(name, "") for name in ("class", "id", "aria-label", "itemtype"))
        if not MARKED.search(marks) or any(parent in taken for parent in element.iterancestors()):
            continue
        looked += 1
        if looked > MAX_MARKED:
            return
        if 2 <= len(crumbs := _crumbs_in(element)) <= MAX_NAMES:
            taken.add(element)
            yield crumbs
    if not taken:
        for element in page.tree.xpath("//*[count(a) >= 2]"):
            links = element.findall("a")
            if len(links) <= MAX_NAMES and all(ARROW.fullmatch(link.tail or "") for link in links[:-1]):
                yield _crumbs_in(element)
                return


def _crumbs_in(element: lxml.html.HtmlElement) -> list[Crumb]:
    """Return the entries of a breadcrumb's element: one a link, and text between the links split at signs."""
    crumbs: list[Crumb] = []
    for part in _parts(element):
        if isinstance(part, str):
            names = [clean(text) for text in ARROW.split(part)]
            crumbs += [(name, None) for name in names if name and not SIGNS.fullmatch(name)]
        elif name := text_of(part):
            crumbs.append((name, part.get("href")))
        if len(crumbs) > MAX_NAMES:
            break
    return [(name, address) for name, address in crumbs if not name.endswith(":")]


def _parts(element: lxml.html.HtmlElement) -> Iterator["str | lxml.html.HtmlElement"]:
    """Yield links whole, and the texts outside of links, in order; a list inside a list entry is a menu."""
    skip: lxml.html.HtmlElement | None = None
    for event, node in islice(lxml.etree.iterwalk(element, events=("start", "end")), 2 * MAX_ELEMENTS):
        if skip is not None:
            if event == "end" and node is skip:
                skip = None
                yield node.tail or ""
            continue
        if event == "start":
            menu = node.tag in ("ul", "ol") and node is not element and node.getparent().tag == "li"
            if menu or node.tag in ("script", "style", "noscript", "svg", "select", "button"):
                skip = node
            elif node.tag == "a":
                skip = node
                yield node
            else:
                yield node.text or ""
        elif node is not element:
            yield node.tail or ""
