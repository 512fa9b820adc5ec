"""What gateway and model say to each other, and the line in which questions wait."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from atlas_ray.modalities.products import Texts
from atlas_ray.taxonomy import CategoryPath

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Question:
    """Products of one request, their pictures decoded."""

    pixels: Pixels
    """(count, 3, size, size); anything where there is no picture."""
    within: CategoryPath = ()
    explain: bool = False
    texts: Texts = field(default_factory=dict)
    """By field that the model reads: the text of each product."""
    seen: tuple[bool, ...] = ()
    """Whether each product has a picture; () where all have."""

    def __len__(self) -> int:
        """Count the products."""
        return len(self.pixels)

    def part(self, start: int, end: int) -> Self:
        """Return the question about some of its products."""
        texts = {name: column[start:end] for name, column in self.texts.items()}
        return replace(self, pixels=self.pixels[start:end], texts=texts, seen=self.seen[start:end])


@dataclass(frozen=True)
class Answer:
    """What a model says to a question.

    Attributes:
        replica: Which replica of the model answered.
        model_id: The artifact that answered.
        taxonomy_id: What it chose from.
        image_size_px: What it takes; the question is to be asked again where its pictures differ.
        reads: What it looks at; the question is to be asked again where its texts are others.
        rows: For each picture the columns of the predictions table that a search fills.
        maps: With `explain`, (count, depth, rows, columns): where it looked for each level.
        error: A code and a sentence in the place of rows.
    """

    replica: str
    model_id: str
    taxonomy_id: str
    image_size_px: int
    reads: tuple[str, ...]
    rows: list[dict[str, Any]] | None = None
    maps: "np.ndarray[Any, np.dtype[np.float32]] | None" = None
    error: tuple[str, str] | None = None


class Waiting:
    """A question that waits, and where its answer goes; made where an event loop runs."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.since = time.monotonic()

    def settle(self, answer: Answer | Exception) -> None:
        """Give the answer, or why there is none, to whoever still waits for it."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Line:
    """Questions that wait for a model, in their order."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._waiting: deque[Waiting] = deque()
        self._products = 0

    def __len__(self) -> int:
        """Count the questions."""
        return len(self._waiting)

    @property
    def fills_a_batch(self) -> bool:
        """Whether as many products wait as go through the model together."""
        return self._products >= self._batch_size

    @property
    def since(self) -> float:
        """When the first one came, by the monotonic clock."""
        return self._waiting[0].since

    def join(self, one: Waiting) -> None:
        """Add a question, of a batch's products at most."""
        self._waiting.append(one)
        self._products += len(one.question)

    def leave(self, one: Waiting) -> bool:
        """Take a question out, if it still waits, and tell whether it did."""
        if one not in self._waiting:
            return False
        self._waiting.remove(one)
        self._products -= len(one.question)
        return True

    def next_batch(self) -> list[Waiting]:
        """Take as many questions as fit in a batch, without those that nobody waits for; none where none waits."""
        batch: list[Waiting] = []
        room = self._batch_size
        while self._waiting and len(self._waiting[0].question) <= room:
            one = self._waiting.popleft()
            self._products -= len(one.question)
            if not one.answer.done():
                room -= len(one.question)
                batch.append(one)
        return batch
