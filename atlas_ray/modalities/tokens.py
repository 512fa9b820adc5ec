"""Tokens of texts: the pieces of words that a sentence encoder reads, by the `tokenizer.json` of its folder."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from atlas_ray.arrays import Array
from atlas_ray.errors import ArtifactError
from atlas_ray.modalities.texts import WordIndex, plain_text

CHARACTERS_A_TOKEN = 20
"""So many characters of a text are looked at for each token that is read; hardly any language needs more."""
NO_TOKEN = -1
"""The number past a text's end."""


class TokenIndex:
    """The tokens that a sentence encoder knows, and the way from a text to their numbers."""

    def __init__(self, data: bytes, *, length: int, prefix: str = "", lower: bool = False) -> None:
        """Read a `tokenizer.json`.

        Args:
            data: The file's content.
            length: The most tokens of a text.
            prefix: A text that is put before each text.
            lower: Whether texts are brought into lower case first.

        Raises:
            ArtifactError: if it holds no tokenizer.
        """
        os.environ["TOKENIZERS_PARALLELISM"] = (
            "false"  # a batch takes milliseconds; its threads would not end at a fork
        )
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_buffer(data)
            tokenizer.no_padding()
            tokenizer.enable_truncation(length)
            tokenizer.encode_batch(["", "warm"])
        except BaseException as error:  # a file that its reader, of Rust, does not expect ends in a panic
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise ArtifactError(f"tokenizer.json holds no tokenizer: {str(error).splitlines()[0][:200]}") from None
        self.data, self.length, self.prefix, self.lower = data, length, prefix, lower
        self._tokenizer: Any = tokenizer

    def __len__(self) -> int:
        """Return the smallest number above that of every token."""
        return 1 + max(self._tokenizer.get_vocab().values(), default=-1)

    def __reduce__(self) -> Any:
        """Send the file to other processes."""
        return _read, (self.data, self.length, self.prefix, self.lower)

    def encode(self, texts: Sequence[str | None]) -> Array:
        """Return (texts, length) int32: the number of each token, `NO_TOKEN` past a text's end."""
        rows = self._cut(texts)
        table = np.full((len(texts), self.length), NO_TOKEN, np.int32)
        for row, found in enumerate(rows):
            table[row, : len(found.ids)] = found.ids
        return table

    def pieces(self, text: str | None) -> list[str]:
        """Return what `encode` numbers of a text: its tokens."""
        (found,) = self._cut([text])
        return list(found.tokens)

    def _cut(self, texts: Sequence[str | None]) -> list[Any]:
        most = CHARACTERS_A_TOKEN * self.length
        plain = [self.prefix + plain_text(text)[:most] for text in texts]
        rows: list[Any] = self._tokenizer.encode_batch([text.lower() for text in plain] if self.lower else plain)
        return rows


@functools.lru_cache(4)  # a process that takes many tasks gets the same file with each, of megabytes
def _read(data: bytes, length: int, prefix: str, lower: bool) -> TokenIndex:
    return TokenIndex(data, length=length, prefix=prefix, lower=lower)


TextIndex = WordIndex | TokenIndex
"""What numbers the words, or the tokens, of a text for a model."""
