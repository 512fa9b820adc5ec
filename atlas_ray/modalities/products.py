"""Batches of products as models take them: pictures and texts, any of which may be missing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from atlas_ray.modalities import PICTURE, Texts
from atlas_ray.modalities.texts import has_words


@dataclass(frozen=True)
class Products:
    """The pictures and texts of `count` products."""

    pixels: Tensor
    """(count, 3, size, size) uint8; those of a missing picture are ignored."""
    texts: Texts = field(default_factory=dict)
    seen: Tensor | None = None
    """(count,) bool: whether there is a picture; None if all have one."""

    def __len__(self) -> int:
        """Return how many products."""
        return len(self.pixels)

    @classmethod
    def of_texts(cls, texts: Texts) -> Self:
        """Return products without a picture."""
        count = len(next(iter(texts.values())))
        return cls(torch.zeros((count, 0), dtype=torch.uint8), texts, torch.zeros(count, dtype=torch.bool))

    def text(self, name: str) -> Sequence[str | None]:
        """Return the text of each product; None for a field that was not given."""
        return self.texts.get(name) or [None] * len(self)

    def has_text(self, name: str) -> Tensor:
        """Return which products have a text with a word in it that models read, (count,) bool."""
        return torch.tensor([has_words(text, name) for text in self.text(name)], dtype=torch.bool)

    def present(self, modalities: Sequence[str]) -> Tensor:
        """Return which of these modalities each product has, (count, modalities) bool."""
        seen = torch.ones(len(self), dtype=torch.bool) if self.seen is None else self.seen
        return torch.stack([seen if name == PICTURE else self.has_text(name) for name in modalities], 1)

    def take(self, rows: Sequence[int]) -> Self:
        """Return the products of these rows."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return type(self)(
            self.pixels[index],
            {name: [texts[row] for row in rows] for name, texts in self.texts.items()},
            None if self.seen is None else self.seen[index],
        )

    def split(self, size: int) -> Iterator[Self]:
        """Yield them in batches of at most `size`."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield type(self)(
                self.pixels[part],
                {name: texts[part] for name, texts in self.texts.items()},
                None if self.seen is None else self.seen[part],
            )
