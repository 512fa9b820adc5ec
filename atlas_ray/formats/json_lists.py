"""A reader of a list in a JSON document, entry by entry; numbers may be NaN, infinite or of any size, as in exports."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from atlas_ray.errors import RowError
from atlas_ray.formats.text_files import Utf8Stream
from atlas_ray.formats.values import printable

MAX_ENTRY_CHARACTERS = 16 * 1024 * 1024
MAX_DIGITS = 4000
"""The digits of the longest whole number that is read; a longer one becomes infinite, which every field refuses."""
SPACE = re.compile(r"[ \t\n\r]*")
UNDECODABLE = re.compile("[\udc80-\udcff]")
SHOWN = 60


class KeyCheck:
    """A builder of JSON objects that notes a key with two values, of which a reader would take the last."""

    def __init__(self) -> None:
        self._doubled: str | None = None

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return an object of its keys and values."""
        entry = dict(pairs)
        if len(entry) < len(pairs):
            self._doubled = next((key for key, value in pairs if value != entry[key]), self._doubled)
        return entry

    def take(self) -> RowError | None:
        """Return what is wrong with the objects since the last call."""
        key, self._doubled = self._doubled, None
        return None if key is None else RowError("bad_row", f"the key {printable(key)[:SHOWN]!r} has two values")


class JsonList:
    """A reader of a list in a JSON document; memory grows with its longest entry alone."""

    def __init__(self, stream: Utf8Stream) -> None:
        """Take a document, of which nothing was read."""
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._keys = KeyCheck()
        self._scan = json.JSONDecoder(parse_int=_whole_number, object_pairs_hook=self._keys).raw_decode
        self._text = ""
        self._began = self._at = 0
        """Where the last value begins, and what is not read yet."""
        self._in_object = False

    def find(self, key: str | None = None) -> str | None:
        """Go to a list.

        Args:
            key: Of the list in the document, which is an object; None for a document that is a list, or else the first
                list in it that begins with an object.

        Returns:
            Its key, "" if the document is a list; None if there is none.

        Raises:
            ValueError: if the document is not JSON.
        """
        if key is None and self._take("["):
            return ""
        self._in_object = self._take("{")
        while self._in_object and self._peek() == '"':
            name = str(self._value())
            self._expect(":")
            if self._peek() == "[":
                self._at += 1
                if name == key or (key is None and self._peek() == "{"):
                    return name
                for _ in self.entries():
                    pass
            else:
                self._value()
            if not self._take(","):
                break
        return None

    def entries(self) -> Iterator[tuple[Any, RowError | None]]:
        """Yield the entries of the list that `find` went to, and why the text of one is not all right.

        Raises:
            ValueError: if the document is not JSON, or ends within the list.
        """
        if self._take("]"):
            return
        while True:
            self._peek()
            self._keys.take()
            entry = self._value()
            yield entry, self._damage() or self._keys.take()
            if self._take("]"):
                return
            self._expect(",")

    def finish(self) -> None:
        """Read what is behind the list, up to the end of the document.

        Raises:
            ValueError: if the document does not end as it should.
        """
        while self._in_object and self._take(","):
            if self._peek() != '"':
                raise self._wrong("a key")
            self._value()
            self._expect(":")
            self._peek()
            self._value()
        if self._in_object:
            self._expect("}")
        if self._peek():
            raise self._wrong("the end of the document")

    def _value(self) -> Any:
        """Read the value that begins here."""
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except RecursionError:
                raise ValueError("an entry nested without end") from None
            except ValueError as error:
                if len(self._text) - self._at > MAX_ENTRY_CHARACTERS or not self._fill():
                    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    at = error.pos if isinstance(error, json.JSONDecodeError) else self._at
                    raise ValueError(f"{reason.removesuffix(' at')} at {self._text[at : at + SHOWN]!r}") from None
                continue
            if end < len(self._text) or not self._fill():  # a number may go on in the next block
                self._began, self._at = self._at, end
                return value

    def _damage(self) -> RowError | None:
        if self._text.isascii() or not UNDECODABLE.search(self._text, self._began, self._at):
            return None
        return RowError("bad_encoding", f"a text in it is not {self._stream.encoding_name}")

    def _peek(self) -> str:
        """Return the next sign that is no white space; "" at the end."""
        while True:
            match = SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def _take(self, sign: str) -> bool:
        """Take the next sign, if it is this one."""
        found = self._peek() == sign
        self._at += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._wrong(repr(sign))

    def _wrong(self, expected: str) -> ValueError:
        found = self._text[self._at : self._at + SHOWN]
        return ValueError(f"{found!r} where {expected} is expected" if found else f"it ends before {expected}")

    def _fill(self) -> bool:
        """Read at least as much again as is unread; tell whether there was more."""
        parts, size = [self._text[self._at :]], 0
        wanted = len(parts[0])
        while size <= wanted and (block := self._stream.read()):
            parts.append(self._decoder.decode(block))
            size += len(parts[-1])
        if not size:
            return False
        self._text, self._at = "".join(parts), 0
        return True


def _whole_number(text: str) -> float | int:
    return int(text) if len(text) <= MAX_DIGITS else float(text)
