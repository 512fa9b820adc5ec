"""A saved response: bytes to text to a tree, whatever the bytes are."""

import codecs
import re
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urldefrag, urljoin, urlsplit

import lxml.etree
import lxml.html
from chardetng_py import EncodingDetector
from parsel import Selector
from w3lib.encoding import html_to_unicode, read_bom, resolve_encoding

from atlas_ray.extraction.visibility import seen_texts

MAX_BYTES = 5 * 1024 * 1024
"""Bytes of a body that are read; the largest shop pages have 2 to 3 MiB."""
MAX_TEXT = 20_000
"""Largest number of characters of one text that are kept."""
EMPTY = b"<html></html>"
HTML = re.compile(
    r"(?:[\s\ufeff]++|<\?[^>]*+>|(?><!--.*?-->))*+<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
"""How a page begins, whatever the server calls it."""
SEEN = "//text()[not(parent::script or parent::style or parent::noscript)]"
"""XPath: the texts that readers see."""
MAX_SHOWN = 100
"""Characters of words that are looked for."""
FIRST_UNSPACED = "\u0e00"
"""Thai, the first in Unicode of the scripts that put no space between words."""
ICONS = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]")
"""Characters for private use, which fonts draw as icons."""
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff"  # controls, halves of characters
    "\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc"  # without width
    # Joiners shape Arabic and Indic letters and emoji; beside other letters they are dirt.
    "]|(?<![\u0600-\U0001ffff])[\u200c\u200d]|[\u200c\u200d](?![\u0600-\U0001ffff])"
)
"""Characters that cannot be stored or seen."""


@dataclass(frozen=True)
class Page:
    """A saved response.

    Attributes:
        url: Where it came from, after redirects; "" if that is not known.
        body: The bytes, without transfer encoding; the first `MAX_BYTES` are read.
        content_type: The Content-Type header as sent, or "".
    """

    url: str
    body: bytes
    content_type: str = ""

    @property
    def is_html(self) -> bool:
        """Return whether this is text with markup; if what the server calls it says otherwise, the bytes decide."""
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind and kind not in ("text/html", "application/xhtml+xml", "text/plain", "application/octet-stream"):
            return HTML.match(self.text[:4096]) is not None
        return "<" in self.text[:4096]

    @cached_property
    def text(self) -> str:
        """The body as text, without NUL characters.

        A byte order mark is believed, then the bytes themselves if they are UTF-8, then what the header
        and the page declare. What declares nothing, or UTF-8 with hardly a valid character of it beyond
        ASCII, is read in the encoding that its letters and the country of its address make likely.
        """
        body = self.body[:MAX_BYTES]
        if read_bom(body)[0] is None:
            try:
                # Incremental, since the limit may have cut the last character in two.
                return codecs.getincrementaldecoder("utf-8")().decode(body).replace("\0", "")
            except UnicodeDecodeError:
                pass
        encoding, text = html_to_unicode(self.content_type or None, body, auto_detect_fun=self._likely_encoding)
        if encoding == "utf-8" and read_bom(body)[0] is None:
            broken = text.count("\ufffd")
            if broken > sum(letter > "\x7f" for letter in text) - broken:
                text = body.decode(self._likely_encoding(body), "replace")
        return text.replace("\0", "")

    def _likely_encoding(self, body: bytes) -> str:
        """Return the encoding in which bytes make words: UTF-8 if hardly a character of it is broken."""
        text = body.decode("utf-8", "replace")
        if 10 * text.count("\ufffd") < sum(letter > "\x7f" for letter in text):
            return "utf-8"
        detector = EncodingDetector()
        detector.feed(body, last=True)
        country = host_of(self.url).rpartition(".")[2]
        hint = country.encode() if re.fullmatch("[a-z]{2,20}", country) else None
        name = detector.guess(tld=hint, allow_utf8=False)
        return resolve_encoding(name) or name

    @cached_property
    def tree(self) -> lxml.html.HtmlElement:
        """The root element, parsed once; an empty page has one without children."""
        # Without `huge_tree`, libxml2 bounds the depth of what it builds.
        parser = lxml.html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
        try:
            root = lxml.etree.fromstring(self.text.encode("utf-8", "replace") or EMPTY, parser)
        except lxml.etree.LxmlError:
            root = None
        return lxml.etree.fromstring(EMPTY, parser) if root is None else root

    @cached_property
    def selector(self) -> Selector:
        """The tree, for CSS selectors."""
        return Selector(root=self.tree, type="html")

    @cached_property
    def base_url(self) -> str:
        """What relative addresses on the page are relative to."""
        (base,) = self.tree.xpath("//base/@href")[:1] or ("",)
        return join_url(self.url, base) or self.url

    def absolute(self, address: str) -> str | None:
        """Return an address on the page as an absolute http(s) URL without fragment, or None."""
        return join_url(self.base_url, address)

    def same_site(self, url: str) -> bool:
        """Return whether a URL has the page's host, `www.` aside."""
        return host_of(url) == host_of(self.url)

    @cached_property
    def metas(self) -> dict[str, str]:
        """The `<meta>` elements: name or property in lower case -> content, the first that has one."""
        metas: dict[str, str] = {}
        for element in self.tree.iterfind(".//meta[@content]"):
            name = (element.get("property") or element.get("name") or "").strip().lower()
            content = clean(element.get("content", ""))
            if name and content:
                metas.setdefault(name, content)
        return metas

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """What the page calls itself: og:title, first-level headings, the title element."""
        headings = [text_of(element) for element in self.tree.xpath("(//h1)[position() <= 3]")]
        title = text_of(next(iter(self.tree.xpath("(//title[not(ancestor::svg)])[1]")), None))
        return tuple(filter(None, (self.metas.get("og:title"), *headings, title)))

    def shows(self, words: str) -> bool:
        """Return whether a few words stand in what readers see, apart from case and white space.

        Texts of pictures and the page's titles count. Scripts that put no space between words know no word's end.
        """
        wanted = " ".join(words.split()).casefold()
        if not 0 < len(wanted) <= MAX_SHOWN:
            return False
        texts = (*self.tree.xpath(f"//body{SEEN}"), *self.tree.xpath("//img/@alt"), *self.titles)
        text = f" {' '.join(visible(' '.join(' '.join(texts).split())).split())} ".casefold()
        start = text.find(wanted)
        while start >= 0:
            before, after = text[start - 1], text[start + len(wanted)]
            if not any(letter.isalnum() and letter < FIRST_UNSPACED for letter in (before, after)):
                return True
            start = text.find(wanted, start + 1)
        return False

    @cached_property
    def addresses(self) -> tuple[str, ...]:
        """The page's own URLs on its own site: rel=canonical, og:url, and where it came from.

        A canonical URL that names the shop's front page for a page that is not is left out.
        """
        links = self.tree.xpath("//link[@rel='canonical']/@href")[:1]
        urls = []
        for address in (*links, self.metas.get("og:url", "")):
            url = self.absolute(address)
            if url and (not self.url or (self.same_site(url) and is_front(url) <= is_front(self.url))):
                urls.append(url)
        return tuple(dict.fromkeys((*urls, urldefrag(self.url)[0])))


def join_url(base: str, address: str) -> str | None:
    """Return an address as an absolute http(s) URL without fragment, or None if it is not one."""
    if not address.strip():
        return None
    try:
        url = urldefrag(urljoin(base, "".join(address.split("\n")).strip()))[0]
        parts = urlsplit(url)
        # A host name may be no name at all, and a port no number.
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != -1
    except ValueError:
        return None
    return url.encode("utf-8", "replace").decode() if valid else None


def host_of(url: str) -> str:
    """Return a URL's host in lower case and ASCII (`xn--...`), as requests name it, without `www.`, or ""."""
    try:
        return (urlsplit(url).hostname or "").encode("idna").decode().lower().removeprefix("www.")
    except ValueError:
        return ""


def is_front(url: str) -> bool:
    """Return whether a URL is that of a site's front page."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.path in ("", "/") and not parts.query


def visible(text: str) -> str:
    """Return text without the characters that cannot be stored or seen; an icon leaves a space."""
    return text if text.isascii() and text.isprintable() else UNSEEN.sub("", ICONS.sub(" ", text))


def clean(text: str) -> str:
    """Return text with white space collapsed, and without what cannot be stored or seen."""
    # White space first: line breaks are control characters as well.
    text = visible(" ".join(text[: 4 * MAX_TEXT].split()))
    return " ".join(text.split())[:MAX_TEXT].strip()


def text_of(element: lxml.html.HtmlElement | None) -> str:
    """Return the text below an element that a reader sees; what is all hidden is given as it is."""
    if element is None:
        return ""
    return clean(" ".join(text for text, _ in seen_texts(element))) or clean(" ".join(element.xpath(f".{SEEN}")))


def plain_key(text: str) -> str:
    """Return what two spellings of a name have in common: its words, without signs and case."""
    return re.sub(r"[\W_]+", " ", text).strip().casefold()
