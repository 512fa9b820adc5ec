"""Words of titles and descriptions, and the vocabulary that numbers them.

What is kept of each field is the late-fusion paper's (Wirojwatanakul and Wangperawong 2019):
titles whole, cut to 57 words; descriptions without stop words, digits, punctuation, white space
and words over 30 characters, cut to 300.
"""

import html
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import regex

from atlas_ray.errors import ArtifactError

FIELDS = {"title": 57, "description": 300}
"""The text fields of a product, with the number of words that is read of each."""
MAX_CHARACTERS = 50_000
"""The characters of a text that are read; a model reads some hundred words only."""
MAX_RAW_CHARACTERS = 500_000
"""The characters of a text with markup that are read; whole pictures may be embedded in it."""
MAX_WORD_CHARACTERS = 30
MAX_COUNTED = 2_000_000
"""The most distinct words that are held while words are counted; above it, rare ones are dropped."""
PAD, UNKNOWN, FIRST = 0, 1, 2
"""The numbers of padding, of an unknown word, and of the first known word."""
# Scripts written without spaces are read letter by letter.
LETTER = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
START, REST = rf"(?!{LETTER})[\p{{L}}", rf"(?:(?!{LETTER})[\p{{L}}\p{{M}}"
TITLE = regex.compile(rf"{LETTER}|{START}\p{{N}}]{REST}\p{{N}}])*|\p{{Extended_Pictographic}}")
DESCRIPTION = regex.compile(rf"{LETTER}|{START}]{REST}])*")
# A quote opens a value only right after `=`, and no value has a `<`: where a template forgets one, no word is lost.
ATTRIBUTES = r"""(?:=\s*+(?:"[^"<]*+"|'[^'<]*+')|[^<>])*+"""
MARKUP = regex.compile(
    rf"""
    <!--(?:.*?-->|.*)                                                    # a comment; browsers hide what follows, too,
  | <(script|style)(?=[\s/>]){ATTRIBUTES}>(?:.*?</\1\b[^<>]*>|.*)        # where it has no end
  | </?[a-z]{ATTRIBUTES}>
  | <[a-z][^<>"'=]*+=(?=\s*+["']){ATTRIBUTES}(?:["'][^<>]*+)?\Z         # the text was cut within it
  | <(?:/?[a-z]|[!?])[^<>]*+>                                            # one with a quote too many, or <!doctype>
    """,
    regex.IGNORECASE | regex.DOTALL | regex.VERBOSE,
)
"""A pattern of markup; any other `<` is text, as in `size <L`."""
MARKUP_START, BEGINNING = regex.compile("[<&]"), 100
MARKUP_LAYERS = 3
"""The number of times that escapes are resolved, since feeds escape twice: `&amp;lt;p&amp;gt;`."""
LONG_NUMBER = regex.compile(r"&#\d{8,};?")
"""Numeric character references too long to be valid; `int()` refuses thousands of digits."""
MANY_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")
"""Thirty combining marks and more after one letter; the time to order these grows with their square."""


def words_of(text: str | None, field: str) -> list[str]:
    """Return the words of a text, in lower case, at most as many as its field has.

    Markup and its entities are taken out, even if they are escaped; characters count as the same
    however they are composed and however wide they are. A missing text gives no words.

    Args:
        text: Anything.
        field: `title` or `description`.
    """
    if not text:
        return []
    text = _without_markup(text)
    limit = FIELDS[field]
    words: list[str] = (TITLE if field == "title" else DESCRIPTION).findall(_normal(text[:MAX_CHARACTERS]))
    if field == "title":
        return words[:limit]
    stop = _stop_words()
    return [word for word in words if len(word) <= MAX_WORD_CHARACTERS and word not in stop][:limit]


def has_words(text: str | None, field: str) -> bool:
    """Tell whether a text has a word that a model of this field reads: `<p>&nbsp;</p>` and `-` have none."""
    if not text:
        return False
    # Nearly all texts have one at their beginning, before any markup.
    begin = MARKUP_START.split(text[:BEGINNING], maxsplit=1)[0]
    return bool(words_of(begin, field) or words_of(text, field))


def plain_text(text: str | None) -> str:
    """Return a text as a person reads it: in one line, without markup and its entities, at most `MAX_CHARACTERS`."""
    if not text:
        return ""
    text = " ".join(_without_markup(text)[:MAX_CHARACTERS].split())
    return text if text.isascii() else text.encode("utf-8", "replace").decode()  # half of a character is none


def _without_markup(text: str) -> str:
    text = text[:MAX_RAW_CHARACTERS]
    if "<" not in text and "&" not in text:
        return text
    text = text.replace("<![CDATA[", " ").replace("]]>", " ")
    for _ in range(MARKUP_LAYERS):
        plain = html.unescape(LONG_NUMBER.sub(" ", MARKUP.sub(" ", text)))
        if plain == text:
            break
        text = plain
    return text


def _normal(text: str) -> str:
    """Return a text in lower case and in Unicode's form NFKC, at most `MAX_CHARACTERS` of it."""
    if not text.isascii():
        text = MANY_MARKS.sub(r"\1", text).replace("™", " ").replace("℠", " ")  # `Nike™` is not `niketm`
        text = unicodedata.normalize("NFKC", text)[:MAX_CHARACTERS]
        # Thai and Lao AM stay whole: they are read letter by letter, and each is one.
        text = text.replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    return text.lower()


def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    stop: frozenset[str] = ENGLISH_STOP_WORDS
    return stop


class WordCount:
    """Counts of the texts that contain each word, in bounded memory."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._counts: Counter[str] = Counter()

    def add(self, texts: Iterable[str | None]) -> None:
        """Count some texts."""
        for text in texts:
            self._counts.update(set(words_of(text, self._field)))
        while len(self._counts) > MAX_COUNTED:
            least = min(self._counts.values())
            self._counts = Counter({word: count for word, count in self._counts.items() if count > least})

    def __len__(self) -> int:
        """Return how many different words are held."""
        return len(self._counts)

    def most_common(self, limit: int, *, min_count: int) -> list[str]:
        """Return the words of at least `min_count` texts, the most common first, at most `limit`."""
        kept = [(word, count) for word, count in self._counts.items() if count >= min_count]
        return [word for word, _ in sorted(kept, key=lambda item: (-item[1], item[0]))[:limit]]


class WordIndex:
    """The words that a model knows."""

    def __init__(self, words: Sequence[str], field: str) -> None:
        """Take the words, in the order of their numbers.

        Raises:
            ArtifactError: if the words are no list of different strings, or the field is unknown.
        """
        if field not in FIELDS:
            raise ArtifactError(f"field {field!r} is unknown; expected one of {', '.join(FIELDS)}")
        if not all(isinstance(word, str) for word in words) or len(set(words)) != len(words):
            raise ArtifactError("the words are no list of different strings")
        self.words = tuple(words)
        self.field = field
        self.length = FIELDS[field]
        numbers = {word: number for number, word in enumerate(words, FIRST)}
        # A model may have learned words of texts that were not brought into one form.
        self._numbers = {_normal(word): number for word, number in numbers.items()} | numbers

    def __len__(self) -> int:
        """Return how many numbers there are, those of no word and of the unknown ones included."""
        return len(self.words) + FIRST

    def pieces(self, text: str | None) -> list[str]:
        """Return what `encode` numbers of a text: its words."""
        return words_of(text, self.field)

    def encode(self, texts: Sequence[str | None]) -> "np.ndarray[Any, np.dtype[np.int32]]":
        """Return (texts, length) int32: the number of each word, `PAD` past a text's end."""
        numbers = self._numbers
        rows = [[numbers.get(word, UNKNOWN) for word in words_of(text, self.field)] for text in texts]
        table = np.zeros((len(texts), self.length), np.int32)
        lengths = np.array([len(row) for row in rows], np.int64)
        table[np.arange(self.length) < lengths[:, None]] = [number for row in rows for number in row]
        return table
