"""The queue in which questions wait for a model."""

import asyncio
import time
from collections import deque

from atlas_ray.serving.question import Answer, Question


class PendingQuestion:
    """A question that waits, with the future of its answer; made while an event loop runs."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.queued_at = time.monotonic()

    def settle(self, answer: Answer | Exception) -> None:
        """Set the answer or the error, unless the question is settled or cancelled already."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class QuestionQueue:
    """Questions that wait for a model, first in, first out, taken in batches."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._pending: deque[PendingQuestion] = deque()
        self._products = 0

    def __len__(self) -> int:
        """Count the questions."""
        return len(self._pending)

    @property
    def fills_a_batch(self) -> bool:
        """Whether at least one full batch of products waits."""
        return self._products >= self._batch_size

    @property
    def oldest_at(self) -> float:
        """When the first question was added, by the monotonic clock."""
        return self._pending[0].queued_at

    def add(self, pending: PendingQuestion) -> None:
        """Add a question of at most one batch of products."""
        self._pending.append(pending)
        self._products += len(pending.question)

    def remove(self, pending: PendingQuestion) -> bool:
        """Remove a question; return whether it was still in the queue."""
        if pending not in self._pending:
            return False
        self._pending.remove(pending)
        self._products -= len(pending.question)
        return True

    def next_batch(self) -> list[PendingQuestion]:
        """Take the next questions, as many as fit in a batch; leave out those that were cancelled."""
        batch: list[PendingQuestion] = []
        free = self._batch_size
        while self._pending and len(self._pending[0].question) <= free:
            pending = self._pending.popleft()
            self._products -= len(pending.question)
            if not pending.answer.done():
                free -= len(pending.question)
                batch.append(pending)
        return batch
