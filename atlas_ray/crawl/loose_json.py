"""JSON as pages hold it: in comments, with entities, stray quotes, missing and superfluous signs."""

import contextlib
import html
import json
import re
from typing import Any

JSON = json.JSONDecoder(strict=False)
"""It takes line breaks inside texts."""
BETWEEN_VALUES = re.compile(r"[\s,;]*")
COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)|<!--.*?(?:-->|\Z)|-->|<!\[CDATA\[|\]\]>", re.DOTALL)
PLAIN = re.compile(r'[^"{}\[\],/<\]-]+')
"""What stands outside of texts and is copied as it is."""
WORDS = {"undefined": "null", "None": "null", "True": "true", "False": "false"}
WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b")
LEADING_ZERO = re.compile(r"(?<![\w.])(0\d[\d.]*)")
"""A number that JSON refuses: it is a code."""
IN_TEXT = re.compile(r'[^"\\]+')
KEY = r'"(?:[^"\\\n]|\\.){0,100}"\s*:'
AFTER_KEY = re.compile(r"\s*:")
AFTER_VALUE = re.compile(rf"\s*(?:$|[}}\]]|,\s*(?:{KEY}|[}}\],]|//|/\*|$))")
AFTER_ENTRY = re.compile(r'\s*(?:$|\]|\}|,\s*(?:["\[{\],\d-]|true|false|null|//|/\*|$))')
"""What follows the quote that ends a text: as a key, a value of an object, an entry of a list."""
COMMA_MISSING = re.compile(rf"\s*\n\s*{KEY}")
ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')


def load_values(text: str) -> list[Any]:
    """Read JSON, also several values one after the other; [] if nothing can be made of it."""
    text = text.strip()
    most: list[Any] = []
    for repair in (None, _unwrapped, _unescaped, _repaired):
        text = repair(text) if repair else text
        values: list[Any] = []
        with contextlib.suppress(ValueError, RecursionError):
            end = 0
            while not values or (end := BETWEEN_VALUES.match(text, end).end()) < len(text):  # type: ignore[union-attr]
                value, end = JSON.raw_decode(text, end)
                values.append(value)
            return values
        if len(values) > len(most):
            most = values
    return most


def _unwrapped(text: str) -> str:
    """Leave out what stands before the value: comments of HTML and JavaScript, CDATA."""
    text = text.replace("<![CDATA[", "")
    return text[re.search(r"[\[{]|$", text).start() :]  # type: ignore[union-attr]


def _unescaped(text: str) -> str:
    return text if '"' in text else html.unescape(text)


def _repaired(text: str) -> str:
    """Write JSON anew: without comments and superfluous commas, quotes and backslashes in texts escaped.

    A quote ends a text if what follows it can follow a text; any other is a part of the text.
    """
    written: list[str] = []
    open_brackets: list[str] = []
    position = 0
    is_key = False
    while position < len(text):
        letter = text[position]
        if letter == '"':
            in_list = bool(open_brackets) and open_brackets[-1] == "]"
            position = _copy_text(text, position + 1, is_key, in_list, written)
            is_key = is_key or written[-1] == '",'
            continue
        if match := COMMENT.match(text, position) or PLAIN.match(text, position):
            if match.re is PLAIN:
                written.append(LEADING_ZERO.sub(r'"\1"', WORD.sub(lambda word: WORDS[word[0]], match[0])))
                is_key = is_key and ":" not in match[0]
            position = match.end()
            continue
        position += 1
        if letter in "{[":
            open_brackets.append("}" if letter == "{" else "]")
            is_key = letter == "{"
        elif letter == ",":
            _drop_comma(written)
            is_key = bool(open_brackets) and open_brackets[-1] == "}"
        elif letter in "}]":
            _drop_comma(written)
            if open_brackets:
                open_brackets.pop()
            is_key = False
        written.append(letter)
    _drop_comma(written)
    return "".join((*written, *reversed(open_brackets))).strip()


def _copy_text(text: str, position: int, is_key: bool, in_list: bool, written: list[str]) -> int:
    """Write the text that begins at a position, and return where it ends."""
    written.append('"')
    end = AFTER_KEY if is_key else AFTER_ENTRY if in_list else AFTER_VALUE
    while position < len(text):
        if match := IN_TEXT.match(text, position) or ESCAPE.match(text, position):
            written.append(match[0])
            position = match.end()
        elif text[position] == "\\":
            # `\'` and `\d` are none in JSON: the sign itself is meant, of a line's end nothing.
            position += 1
        elif end.match(text, position + 1):
            written.append('"')
            return position + 1
        elif not is_key and COMMA_MISSING.match(text, position + 1):
            written.append('",')
            return position + 1
        else:
            written.append('\\"')
            position += 1
    written.append('"')
    return position


def _drop_comma(written: list[str]) -> None:
    """Leave out a comma that nothing follows."""
    last = len(written) - 1
    while last >= 0 and written[last].isspace():
        last -= 1
    if last >= 0 and written[last] == ",":
        del written[last]
