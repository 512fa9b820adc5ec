"""The data layer of a page: objects in its scripts that shops keep for themselves and for statistics."""

import json
import re
from collections.abc import Iterator
from itertools import islice

from atlas_ray.extraction.labels import letters
from atlas_ray.extraction.page import Page, clean, plain_key
from atlas_ray.extraction.structured import plain

BRAND = re.compile(r"\bbrand(?:_?name)?[\"']?\s{0,4}:\s{0,4}[\"']", re.IGNORECASE)
PAIR = re.compile(
    r"[\"']?\b(\w{1,40})[\"']?\s{0,4}:\s{0,4}"
    r"(?:\"((?:[^\"\\]|\\.){0,300})\"|'((?:[^'\\]|\\.){0,300})'|(\d{1,20})\b)"
)
BRACE = re.compile(r"[{}]")
MAX_OBJECTS = 200
REACH = 2000
"""Number of characters that are read before and after a name."""
MIN_NUMBER = 5
"""Characters of a number that is not by chance another number of the same object."""
MAX_BRAND = 60


def brand_in_scripts(page: Page, title: str, number: str | None) -> str | None:
    """Return the brand in an object of a script that also holds the product's name or number.

    It is written as in the title if that has it: `tp link` is `TP-Link`.
    """
    name, key = plain_key(title), letters(number or "")
    for pairs in islice(_objects(page), MAX_OBJECTS):
        of_product = any(
            (name and plain_key(value) == name) or (len(key) >= MIN_NUMBER and letters(value) == key)
            for value in pairs.values()
        )
        brand = next((value for label, value in pairs.items() if re.fullmatch("brand(_?name)?", label)), "")
        if of_product and len(brand) <= MAX_BRAND and re.search(r"[^\W\d_]", brand):
            spelling = r"[\W_]{0,3}".join(map(re.escape, re.findall(r"[^\W_]+", brand)))
            found = re.search(rf"\b{spelling}\b", title, re.IGNORECASE)
            return found[0] if found else brand
    return None


def _objects(page: Page) -> Iterator[dict[str, str]]:
    """Yield the names and values, without inner objects, of each object that has a brand."""
    for script in page.tree.iter("script"):
        text = script.text or ""
        for match in BRAND.finditer(text):
            before = max((brace.end() for brace in BRACE.finditer(text, max(0, match.start() - REACH), match.start())),
                         default=max(0, match.start() - REACH))  # fmt: skip
            after = BRACE.search(text, match.end(), match.end() + REACH)
            end = after.start() if after else match.end() + REACH
            yield {
                pair[1].lower(): clean(plain(_unescaped(pair[2] or pair[3] or pair[4] or "")))
                for pair in PAIR.finditer(text, before, end)
            }


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False)) if "\\" in text else text
    except ValueError:
        return text
