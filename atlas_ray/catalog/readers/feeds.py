"""Rows of product feeds in XML: RSS 2.0 and Atom with Google Merchant's elements."""

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from atlas_ray.catalog.parts import Origin, Part, RawRow
from atlas_ray.errors import CatalogError, ConfigError, RowError
from atlas_ray.formats.feed_items import FeedItems, Item
from atlas_ray.formats.text_files import AUTO, Utf8Stream, check_encoding, unpacked_blocks

OTHER_NAMES = {"summary": "description", "content": "description"}
"""Our names of Atom's elements."""
DECLARED = re.compile(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._\-]{1,40})["']""")
TOLD = re.compile("utf-?(8|16|32)", re.IGNORECASE)
"""A pattern of encodings that the bytes themselves tell."""


def read_feed(source: Origin, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read the items of feeds; one that is damaged costs itself alone."""
    for part in parts:
        source.stream = _text(source, part)
        number = 0
        for number, item in enumerate(FeedItems(source.stream), 1):
            place = source.place(number, part.name)
            yield RawRow(place, error=item) if isinstance(item, RowError) else RawRow(place, _fields(item))
        if not number:
            raise CatalogError(f"{part.uri}: no <item> and no <entry> in it; expected a product feed in RSS or Atom")


def _text(source: Origin, part: Part) -> Utf8Stream:
    """Open a feed by the encoding that was asked for, or else by the one that it declares."""
    blocks = unpacked_blocks(part.uri, CatalogError)
    first = next(blocks, b"")
    told, declared = source.encoding_asked, DECLARED.search(first[:1000])
    if told == AUTO and declared and not TOLD.match(declared[1].decode()):
        with contextlib.suppress(ConfigError):
            told = check_encoding(declared[1].decode())
    return Utf8Stream(itertools.chain([first], blocks), told)


def _fields(item: Item) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, values in sorted(item.items(), key=lambda one: one[0] in OTHER_NAMES):
        if name == "product_type" and len(values) > 1:  # each is a path
            fields[name] = [[part.strip() for part in str(path).split(">")] for path in values]
        else:
            one = len(values) == 1 or name == "link"  # Atom links to other forms of the page, too
            fields.setdefault(OTHER_NAMES.get(name, name), values[0] if one else values)
    return fields
