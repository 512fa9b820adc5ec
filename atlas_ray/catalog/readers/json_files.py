"""Rows of JSON Lines, of lists in JSON documents, and of layouts of either that have names."""

import ast
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from atlas_ray.catalog.parts import Origin, Part, Place, RawRow
from atlas_ray.errors import CatalogError, RowError
from atlas_ray.formats.json_lists import JsonList, KeyCheck
from atlas_ray.formats.text_files import read_lines
from atlas_ray.formats.values import describe, is_missing, printable


def read_json_lines(source: Origin, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read an object a line."""
    for part in parts:
        yield from _json_lines(source, part, _as_json)


def read_amazon(source: Origin, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read metadata as Amazon's reviews come with: an object a line, in JSON or as Python prints it."""
    for part in parts:
        for row in _json_lines(source, part, _as_json_or_python):
            row.fields = _of_amazon(row.fields)
            yield row


AMAZON = {"product_id": ("asin", "parent_asin"), "image_uris": ("imageURLHighRes", "imageURL", "imUrl"),
          "category_path": ("categories", "category")}  # fmt: skip
"""Keys of Amazon's metadata by our field, the preferred first; they differ from year to year."""


def _of_amazon(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a product of Amazon's with the names of our fields; texts in paragraphs as one."""
    named = dict(fields)
    for field, keys in AMAZON.items():
        found = [value for key in keys if (value := named.pop(key, None)) not in (None, "", [], [[]])]
        if found:
            named[field] = found[0]
    if isinstance(images := named.get("images"), list):  # each in several sizes
        sizes = [[one.get("hi_res") or one.get("large") or one.get("thumb")] if isinstance(one, dict) else [one]
                 for one in images]  # fmt: skip
        named["images"] = [uri for (uri,) in sizes if uri]
    if isinstance(text := named.get("description"), list):
        named["description"] = "\n".join(one for one in text if isinstance(one, str))
    return named


Decode = Callable[[str], Any]


def _as_json(keys: KeyCheck) -> Decode:
    return json.JSONDecoder(object_pairs_hook=keys).decode


def _as_json_or_python(keys: KeyCheck) -> Decode:
    decode = _as_json(keys)

    def read(line: str) -> Any:
        with contextlib.suppress(ValueError):
            return decode(line)
        keys.take()
        try:
            return ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError) as error:
            raise ValueError(str(error)) from None

    return read


def _json_lines(source: Origin, part: Part, decoder: Callable[[KeyCheck], Decode]) -> Iterator[RawRow]:
    keys = KeyCheck()
    decode = decoder(keys)
    for number, line, broken in read_lines(source.open_part(part)):
        if source.own_lines is not None and number > source.own_lines:
            return
        place = source.place(number, part.name)
        if broken or not line.strip():
            yield RawRow(place, error=broken, blank=not broken)
            continue
        try:
            row = decode(line)
        except (ValueError, RecursionError) as error:
            keys.take()
            yield RawRow(place, error=RowError("bad_row", f"not JSON: {printable(str(error))}"))
            continue
        doubled = keys.take()
        yield RawRow(place, error=doubled) if doubled else _object(place, row)


def read_json(source: Origin, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read the objects of the first list in each JSON document."""
    for part in parts:
        for position, entry, broken in _entries(source, part, None, "item"):
            place = source.place(position, part.name)
            yield RawRow(place, error=broken) if broken else _object(place, entry)


def read_atlas_json(source: Origin, parts: Sequence[Part]) -> Iterator[RawRow]:
    """Read `{"images": [{filename, title, description, price, sentences, split, image_url}]}`."""
    for part in parts:
        for position, image, broken in _entries(source, part, "images", "image"):
            place = source.place(position, part.name)
            row = RawRow(place, error=broken) if broken else _object(place, image)
            if row.error is None:
                _take_atlas(row)
            yield row


def _entries(source: Origin, part: Part, key: str | None, what: str) -> Iterator[tuple[int, Any, RowError | None]]:
    """Yield the entries of a list in a JSON document, with their positions."""
    position = 0
    document = JsonList(source.open_part(part))
    try:
        if document.find(key) is None:
            expected = f"{{{key!r}: [...]}}, an Atlas catalogue" if key else '[...] or {"products": [...]}'
            raise CatalogError(f"{part.uri}: no list of {key or 'products'} in it; expected {expected}")
        for position, (entry, broken) in enumerate(document.entries(), 1):
            yield position, entry, broken
        document.finish()
    except ValueError as error:
        reason = " ".join(printable(str(error)).split())[:300]
        raise CatalogError(f"{part.uri}, after {what} {position}: not JSON: {reason}") from None


def _object(place: Place, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(place, value)
    return RawRow(place, error=RowError("bad_row", f"{describe(value)}; expected an object"))


def _take_atlas(row: RawRow) -> None:
    """Give a picture of an Atlas catalogue the fields of a product."""
    image = row.fields
    name = image.get("image_uri") if is_missing(image.get("filename")) else image.get("filename")
    if is_missing(name):
        name = image.get("image_url")
    if is_missing(image.get("product_id")) and isinstance(name, str):
        file = name.rpartition("/")[2]
        image["product_id"] = file.rpartition(".")[0] or file
    image["image_uris"] = [] if is_missing(name) else [name]
    if sentences := image.get("sentences"):
        try:
            tokens = sentences[0]["tokens"]
        except (KeyError, TypeError, IndexError):
            tokens = None
        if isinstance(tokens, list):
            image["category_path"] = tokens
        else:
            row.error = RowError("bad_row", "sentences[0] has no list of tokens")
