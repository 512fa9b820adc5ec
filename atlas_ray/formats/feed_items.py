"""Items of a product feed in XML, cut from it one by one and parsed each for itself.

What is not well-formed costs the item that it stands in. A document type is never read, so that no entity is expanded
and no other file opened; memory grows with the longest item alone.
"""

import html.entities
import re
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from atlas_ray.errors import RowError
from atlas_ray.formats.text_files import Utf8Stream

Item = dict[str, list[Any]]
"""The values of an item by element: texts, and dictionaries for elements with others in them."""
GOOGLE = re.compile(rb"""xmlns:([\w.\-]{1,40})\s*=\s*["']http://base\.google\.com/ns/1\.0["']""")
"""A pattern of the declaration of the prefix of Google's elements, mostly `g`."""
OUTSIDE = re.compile(rb"<!--|<!\[CDATA\[|<(?:item|entry)(?=[\s>])")
INSIDE = re.compile(rb"<!--|<!\[CDATA\[|<(?:item|entry)(?=[\s>])|</(?:item|entry)\s*>")
SWALLOWED = re.compile(rb"</(?:item|entry)\s*>\s*<(?:item|entry)[\s>]")
"""A pattern of an item's end and the next one's beginning, where a quote goes on that was not closed."""
ENDS = {b"<!--": b"-->", b"<![CDATA[": b"]]>"}
NAMED = re.compile(rb"&([A-Za-z]\w{1,30});")
XML_NAMES = (b"amp", b"lt", b"gt", b"quot", b"apos")
MAX_ITEM_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
LONGEST_MARK = 16


class FeedItems:
    """The items of a feed."""

    def __init__(self, stream: Utf8Stream) -> None:
        self._stream = stream
        self._text = b""
        self._at = 0
        """What is before it was looked at."""
        self._prefixes = {"g"}

    def __iter__(self) -> Iterator[Item | RowError]:
        """Yield each item, or why it is damaged."""
        while (begin := self._find(OUTSIDE)) is not None:
            if begin[0] in ENDS:
                self._skip(ENDS[begin[0]])
                continue
            self._text, self._at = self._text[begin.start() :], begin.end() - begin.start()
            item = self._cut()
            yield item if isinstance(item, RowError) else _parse(item, self._prefixes)

    def _cut(self) -> bytes | RowError:
        """Return the item that the text begins with, and leave what follows it."""
        while len(self._text) <= MAX_ITEM_BYTES:
            mark = INSIDE.search(self._text, self._at)
            if mark is None:
                self._at = max(self._at, len(self._text) - LONGEST_MARK)
                if not self._fill():
                    self._text, self._at = b"", 0
                    return RowError("bad_row", "the feed ends within an item")
            elif mark[0] in ENDS:
                end = self._text.find(ENDS[mark[0]], mark.end())
                torn = SWALLOWED.search(self._text, mark.end(), end if end >= 0 else len(self._text))
                if torn:
                    self._drop(torn.end() - len(b"<item "))
                    return RowError("bad_row", f"not XML: a {mark[0].decode()} that is not closed")
                if end >= 0:
                    self._at = end + 3
                elif not self._fill():
                    self._text, self._at = b"", 0
                    return RowError("bad_row", "the feed ends within an item")
            elif mark[0].startswith(b"</"):
                item = self._text[: mark.end()]
                self._drop(mark.end())
                return item
            else:
                self._drop(mark.start())
                return RowError("bad_row", "not XML: an item that is not closed")
        self._at = 0
        self._drop(len(b"<item"))
        return RowError("bad_row", f"an item of more than {MAX_ITEM_BYTES} bytes")

    def _find(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Return the next mark; what is before it is dropped."""
        while (found := pattern.search(self._text, self._at)) is None:
            self._note(self._text)
            self._drop(max(0, len(self._text) - LONGEST_MARK))
            if not self._fill():
                return None
        self._note(self._text[: found.start()])
        self._at = found.end()
        return found

    def _skip(self, end: bytes) -> None:
        while (at := self._text.find(end, self._at)) < 0:
            self._drop(max(self._at, len(self._text) - LONGEST_MARK))
            if not self._fill():
                return
        self._at = at + len(end)

    def _note(self, text: bytes) -> None:
        """Look for the declaration of Google's prefix in what stands before the items."""
        self._prefixes.update(name.decode() for name in GOOGLE.findall(text))

    def _drop(self, count: int) -> None:
        self._text, self._at = self._text[count:], 0

    def _fill(self) -> bool:
        block = self._stream.read(1)
        self._text += block
        return bool(block)


def _parse(text: bytes, prefixes: set[str]) -> Item | RowError:
    """Return the elements of an item; Google's count before the feed's own of the same name."""
    parser = expat.ParserCreate("utf-8")
    path: list[tuple[str, dict[str, str], Item, list[str]]] = []
    whole: Item = {}

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) >= MAX_DEPTH:
            raise ValueError("elements nested without end")
        path.append((name, attributes, {}, []))

    def end(_: str) -> None:
        name, attributes, inner, texts = path.pop()
        if not path:
            whole.update(_preferred(inner, prefixes))
            return
        value = "".join(texts).strip() or attributes.get("href") or attributes.get("term") or ""
        siblings = path[-1][2]
        found = {key: one[0] if len(one) == 1 else one for key, one in _preferred(inner, prefixes).items()}
        if value or found:
            siblings.setdefault(name, []).append(found or value)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda data: path[-1][3].append(data)
    parser.buffer_text = True
    try:
        parser.Parse(NAMED.sub(_named, text), True)
    except expat.ExpatError as error:
        return RowError(
            "bad_row", f"not XML: {expat.ErrorString(error.code)}, {error.lineno - 1} lines below its start"
        )
    except ValueError as error:
        return RowError("bad_row", f"not XML: {error}")
    return whole


def _preferred(elements: Item, prefixes: set[str]) -> Item:
    """Return elements by their names without Google's prefix."""
    theirs = {name.partition(":")[2]: values for name, values in elements.items() if name.partition(":")[0] in prefixes
              and ":" in name}  # fmt: skip
    return theirs | {
        name: values
        for name, values in elements.items()
        if name not in theirs and (":" not in name or name.partition(":")[0] not in prefixes)
    }


def _named(match: re.Match[bytes]) -> bytes:
    """Return the sign of one of HTML's names, which feeds use without declaring them."""
    sign = html.entities.html5.get(f"{match[1].decode()};")
    return match[0] if match[1] in XML_NAMES or sign is None else sign.encode()
