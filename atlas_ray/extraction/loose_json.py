"""JSON as pages hold it: in comments, with entities, stray quotes, missing and superfluous signs."""

import contextlib
import html
import json
import re
from typing import Any

JSON = json.JSONDecoder(strict=False)
"""A JSON decoder that accepts line breaks inside texts."""
BETWEEN_VALUES = re.compile(r"[\s,;]*")
COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)|<!--.*?(?:-->|\Z)|-->|<!\[CDATA\[|\]\]>", re.DOTALL)
KEY = r'"(?:[^"\\\n]|\\.){0,100}"\s*:'
BARE_KEY = r"[A-Za-z_$@][\w$@.-]{0,60}\s*:"
ANY_KEY = rf"""(?:{KEY}|'[^'\n]{{0,100}}'\s*:|{BARE_KEY}\s*["'{{\[\dntf-])"""
KEY_HERE = re.compile(rf"""{KEY}|'[^'\n]{{0,100}}'\s*:""")
BARE_KEY_HERE = re.compile(BARE_KEY)
NEXT = rf"(?:$|[}}\]](?!\s*[^\W_])|,\s*(?:{ANY_KEY}|[}}\],]|//|/\*|$))"
"""Signs that follow a value of an object."""
AFTER_KEY = re.compile(r"\s*:")
AFTER_VALUE = re.compile(rf"\s*{NEXT}")
AFTER_ENTRY = re.compile(r"""\s*(?:$|[\]}](?!\s*[^\W_])|,\s*(?:["'\[{\],\d-]|true|false|null|//|/\*|$))""")
"""What follows the quote that ends a text: as a key, a value of an object, an entry of a list."""
COMMA_MISSING = re.compile(rf"\s+{KEY}")
LINE_ENDED = re.compile(r",\s*\n\s*")
SUPERFLUOUS = re.compile(rf"""[}}\]\s]*["']?\s*,\s*{KEY}""")
"""What follows a bracket that closes the whole too early."""
ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
OUTSIDE = re.compile(r"""[^"'`{}\[\],:/<\w$@-]+|[\w$@]+|.""", re.DOTALL)
"""What stands between values, in pieces that are passed over."""
BARE = {True: re.compile(r'[^,}\]\n"]*'), False: re.compile(r"[^,}\]\n]*")}
"""Of a value without quotes in an object, and of one in a list."""
IN_TEXT = {'"': re.compile(r'[^"\\]+'), "'": re.compile(r"[^'\\]+"), "`": re.compile(r"[^`\\]+")}
MAX_LINE_END = 200
COMMENT_AFTER = re.compile(r"\s//|/\*")
NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|NaN|-?Infinity")
WORDS = {"": "null", "undefined": "null", "None": "null", "True": "true", "False": "false"}
ESCAPED = re.compile(r'[\[{\s]*\\"')
MAX_VALUES = 10_000
"""Values one after the other; pages have one or two."""


def load_values(text: str) -> list[Any]:
    """Read JSON, also several values one after the other; [] if nothing can be made of it."""
    text = text.strip()
    most: list[Any] = []
    for repair in (None, _unwrapped, _unescaped, _repaired):
        text = repair(text) if repair else text
        values: list[Any] = []
        with contextlib.suppress(ValueError, RecursionError):
            end = 0
            while not values or end < len(text):
                value, end = JSON.raw_decode(text, end)
                values.append(value)
                end = BETWEEN_VALUES.match(text, end).end()  # type: ignore[union-attr]
                if len(values) == MAX_VALUES:
                    break
            # Some write a text that holds the JSON.
            inner = values[0] if len(values) == 1 else None
            return load_values(inner) if isinstance(inner, str) else values
        if len(values) > len(most):
            most = values
    return most


def _unwrapped(text: str) -> str:
    """Leave out what stands before the value: comments of HTML and JavaScript, CDATA."""
    text = text.replace("<![CDATA[", "")
    return text[re.search(r"[\[{]|$", text).start() :]  # type: ignore[union-attr]


def _unescaped(text: str) -> str:
    """Read quotes that are written as character references, or all with a backslash before them."""
    text = text if '"' in text else html.unescape(text)
    return text.replace('\\"', '"') if ESCAPED.match(text) else text


def _repaired(text: str) -> str:
    """Write JSON anew: texts in double quotes, one comma between entries, each bracket closed where its kind ends.

    A quote ends a text if what follows it can follow a text; any other is a part of the text. What stands where a key
    is due and is none is left out.
    """
    writer = _Writer()
    position = 0
    while position < len(text):
        letter = text[position]
        if match := COMMENT.match(text, position):
            position = match.end()
        elif letter in "{[":
            if not writer.needs_key or letter == "[":
                writer.open(letter)
            position += 1
        elif letter in "}]":
            position += 1
            is_last = len(writer.brackets) == 1
            if not (is_last and SUPERFLUOUS.match(text, position)):
                writer.close(letter)
        elif letter == ",":
            writer.end_entry()
            position += 1
        elif letter == ":":
            writer.needs_value = writer.has_key
            position += 1
        elif not writer.brackets or letter.isspace():
            position += 1
        elif writer.needs_key or (letter in "\"'" and not writer.needs_value and KEY_HERE.match(text, position)):
            position = _copy_key(text, position, writer)
        elif letter in "\"'`":
            position, value = _text_at(text, position + 1, letter, AFTER_VALUE if writer.in_object else AFTER_ENTRY)
            writer.put(value)
        else:
            position, value = _bare_at(text, position, writer.in_object)
            writer.put(value)
    while writer.brackets:
        writer.close(writer.brackets[-1])
    return "".join(writer.written)


class _Writer:
    """JSON that is written entry by entry.

    Attributes:
        written: Its pieces.
        brackets: The closing brackets that are due, the innermost last.
        has_key: A key stands without a value.
        needs_value: So does a colon after it.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.brackets: list[str] = []
        self.has_key = self.needs_value = False

    @property
    def in_object(self) -> bool:
        return self.brackets[-1:] == ["}"]

    @property
    def needs_key(self) -> bool:
        return self.in_object and not self.has_key

    def put(self, piece: str) -> None:
        """Write a value, after what has to stand between it and the entry before."""
        if self.has_key:
            self.written.append(":")
        elif self.written and self.written[-1] not in "{[":
            self.written.append(",")
        self.written.append(piece)
        self.has_key = self.needs_value = False

    def put_key(self, piece: str) -> None:
        """Write a key; in a list, it belongs to the object around that."""
        if not self.in_object and self.brackets[-2:-1] == ["}"]:
            self.close("]")
        if self.in_object:
            self.end_entry()
            self.put(piece)
            self.has_key = True

    def open(self, letter: str) -> None:
        self.put(letter)
        self.brackets.append("}" if letter == "{" else "]")

    def close(self, letter: str) -> None:
        """Close the innermost bracket of a kind, and those within; one that is not open is left out."""
        while letter in self.brackets:
            self.end_entry()
            self.written.append(self.brackets.pop())
            if self.written[-1] == letter:
                break

    def end_entry(self) -> None:
        """Give a key without a value none."""
        if self.has_key:
            self.put("null")


def _copy_key(text: str, position: int, writer: _Writer) -> int:
    """Write the key at a position, if there is one, and return where it or what is in its place ends."""
    quoted, bare = KEY_HERE.match(text, position), BARE_KEY_HERE.match(text, position)
    if quoted:
        end, key = _text_at(text, position + 1, text[position], AFTER_KEY)
    elif bare:
        end, key = bare.end() - 1, json.dumps(bare[0][:-1].strip())
    else:
        return OUTSIDE.match(text, position).end()  # type: ignore[union-attr]
    writer.put_key(key)
    return end


def _text_at(text: str, position: int, quote: str, after: re.Pattern[str]) -> tuple[int, str]:
    """Return where the text that begins at a position ends, and the text as JSON."""
    written = ['"']
    plain = IN_TEXT[quote]
    while position < len(text):
        if match := plain.match(text, position) or ESCAPE.match(text, position):
            written.append(match[0] if quote == '"' or match[0][0] == "\\" else match[0].replace('"', '\\"'))
            position = match.end()
        elif text[position] == "\\":
            # `\'` and `\d` are none in JSON: the sign itself is meant, of a line's end nothing.
            position += 1
            if text[position : position + 1] == quote:
                written.append(quote)
                position += 1
        elif after.match(text, position + 1) or (after is not AFTER_KEY and COMMA_MISSING.match(text, position + 1)):
            position += 1
            break
        elif (open_line := LINE_ENDED.search(written[-1], max(len(written[-1]) - MAX_LINE_END, 0))) and (
            open_line.end() == len(written[-1]) and KEY_HERE.match(text, position)
        ):  # the next line's key: this one has no quote at its end
            written[-1] = written[-1][: open_line.start()]
            break
        else:
            written.append('\\"' if quote == '"' else quote)
            position += 1
    return position, "".join((*written, '"'))


def _bare_at(text: str, position: int, in_object: bool) -> tuple[int, str]:
    """Return where a value without quotes ends, and the value as JSON: `9,99`, `undefined`, `00123`."""
    start = position
    while position < len(text):
        position = BARE[in_object].match(text, position).end()  # type: ignore[union-attr]
        sign = text[position : position + 1]
        ends = KEY_HERE.match(text, position) if sign == '"' else sign != "," or AFTER_VALUE.match(text, position)
        if ends or not in_object:
            break
        position += 1
    value = COMMENT_AFTER.split(text[start:position], maxsplit=1)[0].strip().strip('"')
    value = WORDS.get(value, value)
    return max(position, start + 1), value if NUMBER.fullmatch(value) else json.dumps(value)
