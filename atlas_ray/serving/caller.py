"""The calls of a gateway to one model: questions of many requests share a call."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.metrics import Gauge

from atlas_ray.serving.problems import Problem, busy
from atlas_ray.serving.question import Answer, Question
from atlas_ray.serving.queue import PendingQuestion, QuestionQueue

logger = logging.getLogger(__name__)
ATTEMPTS = 3
"""How often a call is tried in all, because its replica may die."""
MIN_CALL_TIMES = 1.5
"""Call the model only while at least this multiple of the recent call time remains before the deadline."""
REPLICA_TTL_S = 30.0
"""Seconds for which a replica counts as running after its last answer."""
LIVENESS_TTL_S = 5.0
"""Seconds for which a model counts as answering after its last answer."""
RECHECK_S = 0.5
"""Seconds between checks whether the first replica of a model has started."""


class ModelCaller:
    """Calls the replicas of one model for a gateway, with questions batched.

    A call costs as much as one or two pictures in the model, whatever it holds. So questions wait here:
    briefly for others to join them, and while every replica is busy, until one answers. A full batch is
    sent at once to a replica that has one call running, so that it is there when that call ends.
    """

    def __init__(
        self,
        name: str,
        handle: DeploymentHandle[Any],
        *,
        batch_size: int,
        batch_wait_s: float,
        max_pending: int,
        patience_s: float,
    ) -> None:
        """Prepare the queue; nothing is called yet.

        Args:
            name: The model's name.
            handle: The Serve handle of its replicas.
            batch_size: Products that go through the model together.
            batch_wait_s: How long a question waits for others while the model is idle.
            max_pending: Questions that may wait.
            patience_s: How long the oldest question may have waited before new requests are refused.
        """
        self.name = name
        self.described: dict[str, Any] | None = None
        """The model's last description; None before the first."""
        self._describing: asyncio.Task[dict[str, Any]] | None = None
        self._handle = handle
        self._queue = QuestionQueue(batch_size)
        self._wait_s = batch_wait_s
        self._max_pending = max_pending
        self._patience_s = patience_s
        self._answered_at = -math.inf
        self._call_s = 0.0
        """A moving average of the time of a call, without calls that waited for a replica to start."""
        self._timer: asyncio.TimerHandle | None = None
        self._calls: dict[asyncio.Task[None], list[PendingQuestion]] = {}
        self._answered_by: dict[str, float] = {}
        """When each replica last answered, by the monotonic clock."""
        tags: Any = ("model_name",)
        self._queue_length = Gauge("atlas_ray_waiting_requests", "Requests that wait for a model in a gateway.", tags)
        self._queue_length.set_default_tags({"model_name": name})

    async def describe(self) -> dict[str, Any]:
        """Ask the model for its description.

        Raises:
            Problem: if it does not answer.
        """
        self.described = description = await self.call("describe")
        return {"name": self.name, **description}

    async def known(self) -> dict[str, Any]:
        """Return the last description; concurrent first callers wait for the same call.

        Raises:
            Problem: if it does not answer.
        """
        while self.described is None:
            await self._describe_once()
        return self.described

    async def check_answers(self) -> None:
        """Check that the model answers, unless it answered a moment ago.

        Raises:
            Problem: if it does not answer.
        """
        if time.monotonic() - self._answered_at > LIVENESS_TTL_S:
            await self._describe_once()

    async def _describe_once(self) -> None:
        """Ask for the description, or join the call that already does."""
        if self._describing is None or self._describing.done():
            self._describing = asyncio.get_running_loop().create_task(self.describe(), context=Context())
        await asyncio.shield(self._describing)

    def check_room(self) -> None:
        """Refuse a request while the queue is full, or its oldest question has waited too long.

        Raises:
            Problem: 429, if so.
        """
        self._check_length()
        if len(self._queue) and self._has_replica() and time.monotonic() - self._queue.oldest_at > self._patience_s:
            raise self._busy()

    def _check_length(self) -> None:
        if len(self._queue) >= self._max_pending:
            raise self._busy()

    def _has_replica(self) -> bool:
        """Return whether a replica answered recently; if not, one may be starting, and everybody waits for it."""
        now = time.monotonic()
        return any(now - answered_at < REPLICA_TTL_S for answered_at in self._answered_by.values())

    async def ask(self, question: Question, deadline: float = math.inf) -> Answer:
        """Ask about at most a batch of products.

        Args:
            question: The question.
            deadline: When the answer is too late, by the monotonic clock. The model has to be called within half of
                the time that is left, and early enough to answer, if it has a replica.

        Raises:
            Problem: if the queue is full, the question's turn does not come in time, or no replica answers.
        """
        self._check_length()
        pending = PendingQuestion(question)
        self._queue.add(pending)
        self._send()
        if deadline < math.inf:
            left_s = deadline - time.monotonic()
            latest_s = min(left_s / 2, left_s - MIN_CALL_TIMES * self._call_s)
            # With nothing else in the queue, its turn comes within the wait for a batch.
            self._refuse_after(max(latest_s, 2 * self._wait_s), pending)
            self._give_up_after(left_s, pending)
        try:
            return await pending.answer
        except asyncio.CancelledError:
            self._forget(pending)
            raise

    def _refuse_after(self, seconds: float, pending: PendingQuestion) -> None:
        """Refuse a question that still waits after this time, unless the model has no replica yet."""

        def refuse() -> None:
            if not self._has_replica():
                self._refuse_after(RECHECK_S, pending)
            elif self._queue.remove(pending):
                pending.settle(self._busy())
                self._queue_length.set(len(self._queue))

        _unless_answered(seconds, pending, refuse)

    def _give_up_after(self, seconds: float, pending: PendingQuestion) -> None:
        """Refuse a question after this time if the model has no replica yet, which another try may find."""

        def give_up() -> None:
            if not self._has_replica():
                pending.settle(self._unavailable())
                self._forget(pending)

        _unless_answered(seconds, pending, give_up)

    def _forget(self, pending: PendingQuestion) -> None:
        """Drop a question whose request ended, and cancel a call that nobody waits for any more."""
        pending.answer.cancel()
        self._queue.remove(pending)
        self._queue_length.set(len(self._queue))
        for call, batch in self._calls.items():
            if pending in batch and all(other.answer.done() for other in batch):
                call.cancel()

    def _send(self) -> None:
        """Call the model with the questions that wait, while a call helps."""
        while self._may_call() and (batch := self._queue.next_batch()):
            # Not in the context of the request that runs here: Serve would cancel the call with it.
            call = asyncio.get_running_loop().create_task(self._ask_together(batch), context=Context())
            self._calls[call] = batch
            call.add_done_callback(self._ended)
        self._queue_length.set(len(self._queue))

    def _may_call(self) -> bool:
        if not len(self._queue):
            return False
        now = time.monotonic()
        self._answered_by = {
            replica: answered_at
            for replica, answered_at in self._answered_by.items()
            if now - answered_at < REPLICA_TTL_S
        }
        replicas = max(1, len(self._answered_by))
        if self._queue.fills_a_batch:
            return len(self._calls) < 2 * replicas
        if len(self._calls) >= replicas:
            return False
        if (left_s := self._queue.oldest_at + self._wait_s - now) <= 0:
            return True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._waited)
        return False

    def _waited(self) -> None:
        self._timer = None
        self._send()

    def _ended(self, call: asyncio.Task[None]) -> None:
        del self._calls[call]
        self._send()

    async def _ask_together(self, batch: list[PendingQuestion]) -> None:
        """Call the model with a batch, and settle each question with its answer or an error."""
        started, had_replica = time.monotonic(), self._has_replica()
        try:
            answers: list[Answer | Exception] = await self.call("ask", [pending.question for pending in batch])
            if had_replica:
                self._call_s += 0.3 * (time.monotonic() - started - self._call_s)
            for pending, answer in zip(batch, answers, strict=True):
                pending.settle(answer)
                if isinstance(answer, Answer):
                    self._answered_by[answer.replica] = time.monotonic()
        except Exception as error:  # of any kind: it ends these requests
            for pending in batch:
                pending.settle(error)
        finally:
            for pending in batch:  # Serve may cancel a call, too
                pending.settle(self._unavailable())

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of a replica, and of another one if that dies; no method changes anything.

        Raises:
            Problem: if the replicas have no room, or none answers.
        """
        for attempt in range(ATTEMPTS):
            response = getattr(self._handle, method).remote(*arguments)
            try:
                answer = await response
                self._answered_at = time.monotonic()
                return answer
            except asyncio.CancelledError:
                response.cancel()  # Serve does so only if the caller's own request was cancelled
                raise
            except BackPressureError:
                raise self._busy() from None
            except (RayActorError, DeploymentUnavailableError) as error:
                if attempt + 1 == ATTEMPTS:
                    logger.warning("model %r: %s", self.name, error)
                    raise self._unavailable() from None
        raise AssertionError("unreachable: ATTEMPTS is at least 1")

    def _busy(self) -> Problem:
        return busy(f"model {self.name!r}")

    def _unavailable(self) -> Problem:
        return Problem(503, "unavailable", f"model {self.name!r} does not answer; try again", {"Retry-After": "5"})


def _unless_answered(seconds: float, pending: PendingQuestion, do: Callable[[], None]) -> None:
    """Do something after this time, unless the question is answered by then."""
    timer = asyncio.get_running_loop().call_later(seconds, lambda: None if pending.answer.done() else do())
    pending.answer.add_done_callback(lambda _: timer.cancel())
