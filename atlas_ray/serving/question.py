"""Questions and answers: the messages between a gateway and a model."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from atlas_ray.modalities import Texts
from atlas_ray.taxonomy import CategoryPath

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Question:
    """Products of one request, their pictures decoded."""

    pixels: Pixels
    """Of shape (count, 3, size, size); the values of a product without a picture are ignored."""
    within: CategoryPath = ()
    explain: bool = False
    texts: Texts = field(default_factory=dict)
    """For each field that the model reads, the text of each product."""
    seen: tuple[bool, ...] = ()
    """Whether each product has a picture; () if all have."""

    def __len__(self) -> int:
        """Count the products."""
        return len(self.pixels)

    def part(self, start: int, end: int) -> Self:
        """Return the same question about the products from `start` to `end`."""
        texts = {name: column[start:end] for name, column in self.texts.items()}
        return replace(self, pixels=self.pixels[start:end], texts=texts, seen=self.seen[start:end])


@dataclass(frozen=True)
class Answer:
    """A model's answer to a question.

    Attributes:
        replica: The replica of the model that answered.
        model_id: The artifact that answered.
        taxonomy_id: The taxonomy whose paths were searched.
        image_size_px: The picture size of the model; if the question's differs, it has to be asked again.
        modalities: The modalities of the model; if the question's texts differ, it has to be asked again.
        rows: For each product the columns of the predictions table that a search fills; None if the question
            has to be asked again.
        maps: With `explain`, the attention for each level, of shape (count, depth, rows, columns).
        error: An error code and a message, instead of rows.
    """

    replica: str
    model_id: str
    taxonomy_id: str
    image_size_px: int
    modalities: tuple[str, ...]
    rows: list[dict[str, Any]] | None = None
    maps: "np.ndarray[Any, np.dtype[np.float32]] | None" = None
    error: tuple[str, str] | None = None
