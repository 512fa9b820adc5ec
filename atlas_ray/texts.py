"""Titles and descriptions as words, and words as numbers.

What is kept of each field is the late-fusion paper's (Wirojwatanakul and Wangperawong 2019, section
3): titles whole, cut to 57 words; descriptions without stop words, digits, punctuation, white space
and words over 30 characters, cut to 300.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import lxml.html
import numpy as np
import regex
from lxml.etree import LxmlError, strip_elements

from atlas_ray.errors import ArtifactError

FIELDS = {"title": 57, "description": 300}
"""The texts of a product, and how many words of each are read."""
MAX_CHARACTERS = 50_000
"""Read of one text; what stands behind is of no use to a model of some hundred words."""
MAX_RAW_CHARACTERS = 500_000
"""The same with markup, into which whole pictures may be written."""
MAX_WORD_CHARACTERS = 30
MAX_COUNTED = 2_000_000
"""Different words held while they are counted; past it, the rare ones are let go."""
PAD, UNKNOWN, FIRST = 0, 1, 2
"""The numbers of no word, of a word that is not known, and of the first known one."""
# Scripts written without spaces are read letter by letter.
LETTER = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
TITLE = regex.compile(rf"{LETTER}|(?:(?!{LETTER})[\p{{L}}\p{{M}}\p{{N}}])+|\p{{Extended_Pictographic}}")
MARKUP, BEGINNING = regex.compile("[<&]"), 100
CONTROL = regex.compile(r"[\p{Cc}\p{Cs}]")
DESCRIPTION = regex.compile(rf"{LETTER}|(?:(?!{LETTER})[\p{{L}}\p{{M}}])+")


def words_of(text: str | None, field: str) -> list[str]:
    """Return the words of a text, in lower case, at most as many as its field has.

    Markup and its entities are taken out; a text that is none gives no word.

    Args:
        text: Anything.
        field: `title` or `description`.
    """
    if not text:
        return []
    text = text[:MAX_RAW_CHARACTERS]
    if "<" in text or "&" in text:
        text = _without_markup(text)
    text = text[:MAX_CHARACTERS]
    limit = FIELDS[field]
    found: list[str] = (TITLE if field == "title" else DESCRIPTION).findall(text.lower())
    if field == "title":
        return found[:limit]
    stop = _stop_words()
    return [word for word in found if len(word) <= MAX_WORD_CHARACTERS and word not in stop][:limit]


def has_words(text: str | None, field: str) -> bool:
    """Tell whether a text has a word that a model of this field reads: `<p>&nbsp;</p>` and `-` have none."""
    if not text:
        return False
    # Nearly all texts have one at their beginning, before any markup.
    begin = MARKUP.split(text[:BEGINNING], maxsplit=1)[0]
    return bool(words_of(begin, field) or words_of(text, field))


def _without_markup(text: str) -> str:
    try:
        # No control character may stand in a document, nor half of a pair.
        text = text.replace("<![CDATA[", " ").replace("]]>", " ")
        root = lxml.html.fromstring(f"<div>{CONTROL.sub(' ', text)}</div>")
    except (LxmlError, ValueError):
        return text
    strip_elements(root, "script", "style", with_tail=False)
    return " ".join(str(part) for part in root.itertext())


def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    stop: frozenset[str] = ENGLISH_STOP_WORDS
    return stop


class WordCount:
    """Counts in how many texts each word stands, in bounded memory."""

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
            ArtifactError: where the words are no list of different strings, or the field is none.
        """
        if field not in FIELDS:
            raise ArtifactError(f"field {field!r} is unknown; expected one of {', '.join(FIELDS)}")
        if not all(isinstance(word, str) for word in words) or len(set(words)) != len(words):
            raise ArtifactError("the words are no list of different strings")
        self.words = tuple(words)
        self.field = field
        self.length = FIELDS[field]
        self._numbers = {word: number for number, word in enumerate(words, FIRST)}

    def __len__(self) -> int:
        """Return how many numbers there are, those of no word and of the unknown ones included."""
        return len(self.words) + FIRST

    def encode(self, texts: Sequence[str | None]) -> "np.ndarray[Any, np.dtype[np.int32]]":
        """Return (texts, length) int32: the number of each word, `PAD` past a text's end."""
        numbers = self._numbers
        found = [[numbers.get(word, UNKNOWN) for word in words_of(text, self.field)] for text in texts]
        table = np.zeros((len(texts), self.length), np.int32)
        lengths = np.array([len(row) for row in found], np.int64)
        table[np.arange(self.length) < lengths[:, None]] = [number for row in found for number in row]
        return table
