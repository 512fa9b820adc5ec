"""A gateway's way to one model: questions of many requests go there together."""

import asyncio
import logging
import math
import time
from contextvars import Context
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.metrics import Gauge

from atlas_ray.serving.problems import Problem, busy
from atlas_ray.serving.question import Answer, Line, Question, Waiting

logger = logging.getLogger(__name__)
ATTEMPTS = 3
"""How often a model is called: its replica may die."""
CALLS = 1.5
"""So many times what a call took lately has to be left when the model is called."""
SEEN_S = 30.0
"""For so long a replica that has answered counts as there."""
LOOK_EVERY_S = 0.5
FRESH_S = 5.0
"""For so long a model that has answered counts as answering."""


class ModelCaller:
    """The replicas of a model, as a gateway calls them.

    A call costs as much as a picture or two in the model, whatever is in it. So what comes waits here:
    a moment for others, and while every replica has a call, until one answers. A full batch goes at
    once to a replica that has but one call, to be there when that ends.
    """

    def __init__(
        self,
        name: str,
        handle: DeploymentHandle[Any],
        *,
        batch_size: int,
        batch_wait_s: float,
        most_waiting: int,
        patience_s: float,
    ) -> None:
        """Prepare to call; nothing is asked yet.

        Args:
            name: The model's name.
            handle: Its replicas.
            batch_size: Products that go through it together.
            batch_wait_s: How long a question waits for others while the model is idle.
            most_waiting: Questions that may wait.
            patience_s: How long the first in line may have waited while more are taken.
        """
        self.name = name
        self.described: dict[str, Any] | None = None
        """What the model was when last asked; None before."""
        self._describing: asyncio.Task[dict[str, Any]] | None = None
        self._handle = handle
        self._line = Line(batch_size)
        self._wait_s = batch_wait_s
        self._most_waiting = most_waiting
        self._patience_s = patience_s
        self._answered_at = -math.inf
        self._call_s = 0.0
        """What calls took lately, without those that waited for a replica to come."""
        self._timer: asyncio.TimerHandle | None = None
        self._calls: dict[asyncio.Task[None], list[Waiting]] = {}
        self._seen: dict[str, float] = {}
        """When each replica answered last."""
        tags: Any = ("model_name",)
        self._length = Gauge("atlas_ray_waiting_requests", "Requests that wait for a model in a gateway.", tags)
        self._length.set_default_tags({"model_name": name})

    async def describe(self) -> dict[str, Any]:
        """Return what the model is.

        Raises:
            Problem: where it does not answer.
        """
        self.described = found = await self.call("describe")
        return {"name": self.name, **found}

    async def known(self) -> dict[str, Any]:
        """Return what the model was when last asked; all who ask first wait for the same answer.

        Raises:
            Problem: where it does not answer.
        """
        while self.described is None:
            await self._describe_once()
        return self.described

    async def check_answers(self) -> None:
        """Ask for a sign of life, if there was none just now.

        Raises:
            Problem: where it does not answer.
        """
        if time.monotonic() - self._answered_at > FRESH_S:
            await self._describe_once()

    async def _describe_once(self) -> None:
        """Describe the model, together with all others who wait for that."""
        if self._describing is None or self._describing.done():
            self._describing = asyncio.get_running_loop().create_task(self.describe(), context=Context())
        await asyncio.shield(self._describing)

    def check_room(self) -> None:
        """Refuse a request while as many wait as may, or the first in line has waited too long.

        Raises:
            Problem: 429.
        """
        self._check_length()
        if len(self._line) and self._is_there() and time.monotonic() - self._line.since > self._patience_s:
            raise self._busy()

    def _check_length(self) -> None:
        if len(self._line) >= self._most_waiting:
            raise self._busy()

    def _is_there(self) -> bool:
        """Tell whether a replica answered lately; else one may be coming, for which everybody waits."""
        now = time.monotonic()
        return any(now - seen < SEEN_S for seen in self._seen.values())

    async def ask(self, question: Question, deadline: float = math.inf) -> Answer:
        """Ask about at most a batch of products.

        Args:
            question: What to ask.
            deadline: By the monotonic clock, when the answer is too late. The model has to be called in half of
                the time that is left, and so early that it can answer, if it is there.

        Raises:
            Problem: where there is no room, its turn does not come in time, or no replica answers.
        """
        self._check_length()
        one = Waiting(question)
        self._line.join(one)
        self._send()
        if deadline < math.inf:
            left_s = deadline - time.monotonic()
            soon_s = min(left_s / 2, left_s - CALLS * self._call_s)
            self._refuse_after(max(soon_s, 2 * self._wait_s), one)  # where nothing else waits its turn comes by then
        try:
            return await one.answer
        except asyncio.CancelledError:
            self._forget(one)
            raise

    def _refuse_after(self, seconds: float, one: Waiting) -> None:
        """Let one go whose turn has not come by then, unless the model itself is still coming."""

        def refuse() -> None:
            if one.answer.done():
                return
            if not self._is_there():
                self._refuse_after(LOOK_EVERY_S, one)
            elif self._line.leave(one):
                one.settle(self._busy())
                self._length.set(len(self._line))

        timer = asyncio.get_running_loop().call_later(seconds, refuse)
        one.answer.add_done_callback(lambda _: timer.cancel())

    def _forget(self, one: Waiting) -> None:
        """Ask no more for someone who went away, and end a call that nobody waits for."""
        one.answer.cancel()
        self._line.leave(one)
        self._length.set(len(self._line))
        for call, batch in self._calls.items():
            if one in batch and all(other.answer.done() for other in batch):
                call.cancel()

    def _send(self) -> None:
        """Call the model with what waits, as far as that helps."""
        while self._may_call() and (batch := self._line.next_batch()):
            # Out of the context of the one request that runs here: Serve would end the call with it.
            call = asyncio.get_running_loop().create_task(self._ask_together(batch), context=Context())
            self._calls[call] = batch
            call.add_done_callback(self._ended)
        self._length.set(len(self._line))

    def _may_call(self) -> bool:
        if not len(self._line):
            return False
        now = time.monotonic()
        self._seen = {replica: seen for replica, seen in self._seen.items() if now - seen < SEEN_S}
        there = max(1, len(self._seen))
        if self._line.fills_a_batch:
            return len(self._calls) < 2 * there
        if len(self._calls) >= there:
            return False
        if (left_s := self._line.since + self._wait_s - now) <= 0:
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

    async def _ask_together(self, batch: list[Waiting]) -> None:
        """Give each question its answer, or what prevented it."""
        started, was_there = time.monotonic(), self._is_there()
        try:
            answers: list[Answer | Exception] = await self.call("ask", [one.question for one in batch])
            if was_there:
                self._call_s += 0.3 * (time.monotonic() - started - self._call_s)
            for one, answer in zip(batch, answers, strict=True):
                one.settle(answer)
                if isinstance(answer, Answer):
                    self._seen[answer.replica] = time.monotonic()
        except Exception as error:  # whatever it is, these requests end with it
            for one in batch:
                one.settle(error)
        finally:
            for one in batch:  # Serve may cancel a call, too
                one.settle(self._unavailable())

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a replica, another one where that dies; what it is asked changes nothing.

        Raises:
            Problem: where there is no room, or no replica answers.
        """
        for attempt in range(ATTEMPTS):
            response = getattr(self._handle, method).remote(*arguments)
            try:
                answer = await response
                self._answered_at = time.monotonic()
                return answer
            except asyncio.CancelledError:
                response.cancel()  # Serve does so only where the caller's own request was cancelled
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
