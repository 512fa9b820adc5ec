"""Typed values from JSON, CSV and Arrow: what a reader returns is of its type, or None if the value is missing.

None, NaN and a text without characters are missing. A value of another type is a `RowError` with the code `bad_value`.
"""

import html
import math
import re
import unicodedata
from decimal import Decimal
from typing import Any

from atlas_ray.errors import RowError

MAX_PRICE = 1e12
"""From here on a number is no price."""
LINE_ENDS = re.compile("\r\n?")
LINE_BREAKS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Characters that `str.splitlines` cuts at besides line ends; inside a text they are white space."""
CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")
SURROGATES = re.compile("[\ud800-\udfff]")
"""A pattern of surrogates, from damaged JSON or a file name that is not UTF-8; Arrow refuses them."""
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});", re.ASCII)
INVISIBLE = "\ufeff\u200b"
"""The byte order mark and the zero-width space, which exports leave at the ends of cells."""
DECIMAL_TEXT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
SPLIT_WORDS = {
    "train": "train", "training": "train", "restval": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val", "development": "val",
    "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
"""Splits by the words that catalogues use for them, in lower case."""
FLAGS = dict.fromkeys(("true", "1", "1.0", "yes", "y", "x"), True) | dict.fromkeys(
    ("false", "0", "0.0", "no", "n"), False
)
"""Whether something is so, by the words that catalogues use for it, in lower case."""
MAX_SHOWN = 80
TYPES = {type(None): "a missing value", bool: "true or false", int: "a number", float: "a decimal number",
         Decimal: "a decimal number", list: "a list", tuple: "a list", dict: "an object", str: "text",
         bytes: "bytes"}  # fmt: skip


def clean_text(text: str) -> str:
    """Return a text as it goes into a table: NFC, LF as line end, no control characters, no space at its ends.

    Halves of characters become U+FFFD.
    """
    if not text.isprintable():
        text = CONTROLS.sub("", LINE_BREAKS.sub(" ", LINE_ENDS.sub("\n", text)))
        text = SURROGATES.sub("\ufffd", text)
    return _strip(unicodedata.normalize("NFC", text))


def plain_text(text: str) -> str:
    """Return a text without HTML's entities, even if they are escaped twice: `A &amp;gt; B` is `A > B`.

    One without its semicolon is none: `Sewing &notions` is a name.
    """
    for _ in range(2):
        if "&" in text:
            text = ENTITY.sub(lambda match: html.unescape(match[0]), text)
    return text


def clean_name(text: str) -> str:
    """Return a name, such as a category's: clean, with one space for each run of white space."""
    return " ".join(clean_text(text).split())


def printable(text: str) -> str:
    """Return a text for a message or a file's name in one: what cannot be printed is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def describe(value: Any) -> str:
    """Return how an error names an unusable value: `{'$oid': 'x'}, an object`."""
    try:
        shown = repr(value)
    except RecursionError:
        shown = "something nested without end"
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
    return printable(f"{shown}, {TYPES.get(type(value), f'a {type(value).__name__}')}")


def is_missing(value: Any) -> bool:
    """Tell whether there is no value: None, NaN, or a text without characters."""
    if isinstance(value, str):
        return not value[:1].isalnum() and not _strip(value)
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def text_value(value: Any, name: str) -> str | None:
    """Return a text; a number is written out.

    Args:
        value: From JSON, CSV or Arrow.
        name: What the value is, for the message, such as `title`.

    Raises:
        RowError: `bad_value` for anything else.
    """
    if is_missing(value):
        return None
    if isinstance(value, str):
        return clean_text(value) or None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    raise RowError("bad_value", f"the {name} is {describe(value)}; expected text")


def identifier(value: Any, name: str) -> str | None:
    """Return an id: text, or a whole number as text. Nothing is replaced in it, lest two ids become one.

    A decimal, of which a database keeps every digit, may be a whole number.

    Raises:
        RowError: `bad_value` for anything else, also for `123.0`; `bad_encoding` for text that is not Unicode.
    """
    if is_missing(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return f"{value:.0f}"
    if not isinstance(value, str):
        raise RowError("bad_value", f"the {name} is {describe(value)}; expected text or a whole number")
    text = _strip(valid_text(value, name))
    if CONTROLS.search(text) or LINE_BREAKS.search(text) or "\n" in text or "\r" in text:
        raise RowError("bad_value", f"the {name} {text[:MAX_SHOWN]!r} holds a control character")
    return unicodedata.normalize("NFC", text)


def name_value(value: Any, name: str) -> str:
    """Return the name of a category; a whole number is written out.

    Raises:
        RowError: `bad_value` for a missing name or another type; `bad_encoding` for text that is not Unicode.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or is_missing(value):
        raise RowError("bad_value", f"a name in the {name} is {describe(value)}; expected text")
    return clean_name(valid_text(value, name))


def flag(value: Any, name: str) -> bool | None:
    """Return whether something is so: true, 1, yes; or false, 0, no.

    Raises:
        RowError: `bad_value` for anything else.
    """
    if is_missing(value):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, float | Decimal) and value in (0, 1):  # as pandas writes a column with missing values
        return bool(value)
    word = FLAGS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if word is None:
        raise RowError("bad_value", f"the {name} is {describe(value)}; expected true or false")
    return word


def split_name(text: str) -> str | None:
    """Return `train`, `val` or `test` for what catalogues call them, in any case; None for anything else."""
    return SPLIT_WORDS.get(text.strip().lower())


def number(value: Any, name: str) -> float | None:
    """Return a finite number, also from plain text such as `12.5`.

    Raises:
        RowError: `bad_value` for anything else.
    """
    if is_missing(value):
        return None
    plain = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if plain or (isinstance(value, str) and DECIMAL_TEXT.fullmatch(value.strip())):
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
        if math.isfinite(result):
            return result
    raise RowError("bad_value", f"the {name} is {describe(value)}; expected a number")


def valid_text(text: str, name: str) -> str:
    """Return a text that is valid Unicode as it is.

    Raises:
        RowError: `bad_encoding` if it holds half a character.
    """
    if not text.isascii() and SURROGATES.search(text):
        raise RowError("bad_encoding", f"the {name} {printable(text)[:MAX_SHOWN]!r} is not valid Unicode text")
    return text


def _strip(text: str) -> str:
    """Strip white space and invisible characters, which may alternate at the ends."""
    stripped = text.strip().strip(INVISIBLE)
    while stripped != text:
        text, stripped = stripped, stripped.strip().strip(INVISIBLE)
    return stripped
