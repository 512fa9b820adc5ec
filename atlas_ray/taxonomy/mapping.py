"""Readers of a publisher's mapping of old paths to new ones: Shopify's files, or a CSV of both."""

import json
from collections.abc import Iterator, Mapping

from atlas_ray.errors import TaxonomyError
from atlas_ray.formats.delimited import Delimited, column_key
from atlas_ray.formats.text_files import Utf8Stream
from atlas_ray.io import storage
from atlas_ray.taxonomy.readers import decode_text
from atlas_ray.taxonomy.tree import CategoryPath, parse_path

PathMapping = Mapping[CategoryPath, tuple[CategoryPath, ...]]
"""The new paths of each old one: several if it was split, none if it was removed."""
COLUMNS = ("old_path", "new_path")
Rows = Iterator[tuple[str, str, str]]
"""Rows of a mapping: the row's place, the old path, and the new one, which may be ""."""


def read_mapping(source: str) -> PathMapping:
    """Read a mapping of old paths to new ones.

    A CSV has the columns `old_path` and `new_path`, with paths as `A > B`. Several rows of one old path
    split it, an empty new path removes it. A JSON file is laid out as those that Shopify publishes,
    `mappings[0].rules[].input.category.full_name` and `output.category[].full_name`.

    Raises:
        TaxonomyError: with the file, the row and the reason.
        StorageError: if the file cannot be read.
    """
    text = decode_text(storage.read_bytes(source), source)
    rows = _shopify_rules(text, source) if text.lstrip()[:1] in ("{", "[") else _csv_rows(text, source)
    mapping: dict[CategoryPath, dict[CategoryPath, None]] = {}
    for place, old, new in rows:
        try:
            targets = mapping.setdefault(parse_path(old), {})
            if new:
                targets[parse_path(new)] = None
        except TaxonomyError as error:
            raise TaxonomyError(f"{source}, {place}: {error}") from None
    if not mapping:
        raise TaxonomyError(f"{source}: no old path in it")
    return {old: tuple(targets) for old, targets in mapping.items()}


def _csv_rows(text: str, source: str) -> Rows:
    table = Delimited(Utf8Stream([text.encode()], "utf-8"), COLUMNS, source=source, error=TaxonomyError)
    columns = list(map(column_key, table.header))
    if not set(map(column_key, COLUMNS)) <= set(columns):
        raise TaxonomyError(f"{source}: the columns are {table.header[:8]}; expected {', '.join(COLUMNS)}")
    old, new = (columns.index(column_key(name)) for name in COLUMNS)
    for line, _, cells, error in table:
        if error:
            raise TaxonomyError(f"{source}, line {line}: {error.message}")
        if cells:
            yield f"line {line}", cells[old], cells[new].strip()


def _shopify_rules(text: str, source: str) -> Rows:
    number = 0
    try:
        (mapping,) = json.loads(text)["mappings"]
        for number, rule in enumerate(mapping["rules"], 1):
            old = rule["input"]["category"]["full_name"]
            new = [category["full_name"] for category in rule["output"]["category"]]
            for name in (old, *new):
                if not isinstance(name, str) or not name:
                    raise TaxonomyError(f"{source}, rule {number}: full_name is {name!r}; expected a text")
            for name in new or [""]:
                yield f"rule {number}", old, name
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        where = f"{source}, rule {number}" if number else source
        raise TaxonomyError(
            f"{where}: not a mapping as Shopify publishes them, nor a CSV of {', '.join(COLUMNS)} "
            f"({type(error).__name__}: {error}); expected one entry of 'mappings', with 'rules'"
        ) from None
