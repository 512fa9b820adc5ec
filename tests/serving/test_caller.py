"""Questions of several requests, on their way to a model."""

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any

import numpy as np
import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from atlas_ray.serving.caller import ModelCaller
from atlas_ray.serving.problems import Problem
from atlas_ray.serving.question import Answer, Question

SIZE = 4


class Slow:
    """A model that answers when it is told to, and not where a question is about `fail`."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        """The pictures of each question of a call, by their first pixel."""
        self._may_answer = asyncio.Event()

    async def ask(self, questions: list[Question]) -> list[Answer | Exception]:
        self.calls.append([int(pixels[0, 0, 0]) for question in questions for pixels in question.pixels])
        await self._may_answer.wait()
        if any(question.within == ("break",) for question in questions):
            raise RuntimeError("a model that is broken")
        return [
            RuntimeError("not this one")
            if question.within == ("fail",)
            else Answer(
                "one", "model", "taxonomy", SIZE, ("picture",), [{"picture": int(p[0, 0, 0])} for p in question.pixels]
            )
            for question in questions
        ]

    async def describe(self) -> dict[str, Any]:
        self.calls.append([])
        await self._may_answer.wait()
        return {"image_size_px": SIZE}

    async def answer(self) -> None:
        self._may_answer.set()

    async def asked(self) -> list[list[int]]:
        """Return the calls since this was asked last."""
        calls, self.calls = self.calls, []
        return calls

    async def hold(self) -> None:
        """Answer no more, and forget what was asked."""
        self._may_answer.clear()
        self.calls = []


@pytest.fixture(scope="module")
def handle() -> DeploymentHandle[Any]:
    app = serve.deployment(Slow).bind()  # type: ignore[attr-defined]
    return serve.run(app, name="slow", route_prefix=None, _local_testing_mode=True)


def question(*pictures: int, within: tuple[str, ...] = ()) -> Question:
    return Question(np.stack([np.full((3, SIZE, SIZE), number, np.uint8) for number in pictures]), within)


def asked(answer: Answer) -> list[int]:
    return [row["picture"] for row in answer.rows or ()]


def caller(
    handle: DeploymentHandle[Any], max_pending: int = 100, batch_wait_s: float = 0.0, patience_s: float = 60.0
) -> ModelCaller:
    return ModelCaller(
        "default", handle, batch_size=4, batch_wait_s=batch_wait_s, max_pending=max_pending, patience_s=patience_s
    )


async def begun(asks: Iterable[Coroutine[Any, Any, Answer]]) -> "list[asyncio.Task[Answer]]":
    """Let questions be asked, and come to the model where they may."""
    tasks = [asyncio.create_task(ask) for ask in asks]
    await asyncio.sleep(0.1)
    return tasks


def test_what_comes_while_the_model_is_busy_goes_together(handle: DeploymentHandle[Any]) -> None:
    async def run() -> list[list[int]]:
        model = caller(handle)
        await handle.hold.remote()
        asks = await begun(model.ask(question(number)) for number in range(3))
        await handle.answer.remote()
        assert [asked(answer) for answer in await asyncio.gather(*asks)] == [[0], [1], [2]]
        return list(await handle.asked.remote())

    assert asyncio.run(run()) == [[0], [1, 2]]


def test_while_the_model_is_idle_one_waits_for_others(handle: DeploymentHandle[Any]) -> None:
    async def run() -> list[list[int]]:
        model = caller(handle, batch_wait_s=0.3)
        await handle.hold.remote()
        await handle.answer.remote()
        asks = await begun(model.ask(question(number)) for number in range(2))
        asks += await begun([model.ask(question(2))])
        assert await handle.asked.remote() == []
        await asyncio.gather(*asks)
        await asyncio.gather(*(model.ask(question(number)) for number in range(3, 7)))  # a batch waits for nobody
        return list(await handle.asked.remote())

    assert asyncio.run(run()) == [[0, 1, 2], [3, 4, 5, 6]]


def test_a_full_batch_goes_before_the_model_is_free(handle: DeploymentHandle[Any]) -> None:
    async def run() -> list[list[int]]:
        model = caller(handle)
        await handle.hold.remote()
        asks = await begun(model.ask(question(2 * number, 2 * number + 1)) for number in range(6))
        before = list(await handle.asked.remote())
        assert len(before) == 2
        await handle.answer.remote()
        await asyncio.gather(*asks)
        return before + list(await handle.asked.remote())

    assert asyncio.run(run()) == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]


def test_more_than_may_wait_is_refused(handle: DeploymentHandle[Any]) -> None:
    async def run() -> None:
        model = caller(handle, max_pending=2)
        await handle.hold.remote()
        asks = await begun(model.ask(question(number)) for number in range(3))
        with pytest.raises(Problem) as refused:
            await model.ask(question(9))
        assert (refused.value.status, refused.value.code) == (429, "busy")
        with pytest.raises(Problem, match="busy"):
            model.check_room()  # before a request is read
        asks[2].cancel()  # who went away waits no more
        await asyncio.sleep(0)
        model.check_room()
        asks = asks[:2] + await begun([model.ask(question(4))])
        await handle.answer.remote()
        assert [asked(answer) for answer in await asyncio.gather(*asks)] == [[0], [1], [4]]

    asyncio.run(run())


@pytest.mark.long
def test_what_would_wait_too_long_is_refused(handle: DeploymentHandle[Any]) -> None:
    async def run() -> None:
        model = caller(handle, patience_s=0.6)
        await handle.hold.remote()
        await handle.answer.remote()
        assert asked(await model.ask(question(9))) == [9]  # it is there
        await handle.hold.remote()
        deadline = time.monotonic() + 2.4
        asks = await begun(model.ask(question(number), deadline) for number in range(3))
        model.check_room()
        await asyncio.sleep(0.6)
        with pytest.raises(Problem, match="busy"):  # the first in line has waited long
            model.check_room()
        await asyncio.sleep(0.8)
        assert [one.done() for one in asks] == [False, True, True]  # at once, not when the model is free
        await handle.answer.remote()
        first, *others = await asyncio.gather(*asks, return_exceptions=True)
        assert isinstance(first, Answer)  # was asked in time
        assert [(one.status, one.code) for one in others if isinstance(one, Problem)] == [(429, "busy")] * 2
        assert asked(await model.ask(question(4), time.monotonic() + 5)) == [4]
        assert await handle.asked.remote() == [[0], [4]]

    asyncio.run(run())


def test_a_model_that_is_still_coming_is_waited_for(handle: DeploymentHandle[Any]) -> None:
    async def run() -> None:
        model = caller(handle, patience_s=0.1)
        await handle.hold.remote()
        asks = await begun(model.ask(question(number), time.monotonic() + 0.8) for number in range(3))
        await asyncio.sleep(0.3)
        model.check_room()
        await handle.answer.remote()
        assert [asked(answer) for answer in await asyncio.gather(*asks)] == [[0], [1], [2]]

    asyncio.run(run())


@pytest.mark.long
def test_what_came_before_the_model_is_refused_once_that_is_there(
    handle: DeploymentHandle[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlas_ray.serving.caller.RECHECK_S", 0.1)

    async def run() -> None:
        model = caller(handle)
        await handle.hold.remote()
        # One is asked; four fill the next call, and the last ones wait for another.
        asks = await begun(model.ask(question(number), time.monotonic() + 0.8) for number in range(9))
        await asyncio.sleep(0.3)
        model._answered_by["one"] = time.monotonic()  # another gateway's answers do not show here; one of ours would
        await asyncio.sleep(0.8)
        done = [one.done() for one in asks]
        await handle.answer.remote()
        found = await asyncio.gather(*asks, return_exceptions=True)
        assert done == [False] * 5 + [True] * 4
        assert [isinstance(one, Problem) for one in found] == done

    asyncio.run(run())


@pytest.mark.long
def test_a_model_that_answered_is_asked_again_whether_it_does(
    handle: DeploymentHandle[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlas_ray.serving.caller.LIVENESS_TTL_S", 0.3)

    async def run() -> None:
        model = caller(handle)
        await handle.hold.remote()
        await handle.answer.remote()
        await model.known()
        await model.check_answers()  # just now it did
        assert await handle.asked.remote() == [[]]
        await handle.hold.remote()
        await asyncio.sleep(0.4)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.check_answers(), 0.2)
        await handle.answer.remote()
        await model.check_answers()

    asyncio.run(run())


def test_who_goes_away_takes_nobody_along(handle: DeploymentHandle[Any]) -> None:
    async def run() -> list[list[int]]:
        model = caller(handle)
        await handle.hold.remote()
        asks = await begun(model.ask(question(number)) for number in range(5))  # 0 is asked, 1 to 4 are a batch
        asks[1].cancel()
        asks += await begun([model.ask(question(5))])
        asks[0].cancel()  # nobody waits for that call any more, and the next one takes its place
        await asyncio.sleep(0.1)
        await handle.answer.remote()
        assert [asked(answer) for answer in await asyncio.gather(*asks[2:])] == [[2], [3], [4], [5]]
        return list(await handle.asked.remote())

    assert asyncio.run(run()) == [[0], [1, 2, 3, 4], [5]]


def test_a_failure_reaches_those_it_is_about(handle: DeploymentHandle[Any]) -> None:
    async def run() -> None:
        model = caller(handle, batch_wait_s=0.05)
        await handle.hold.remote()
        await handle.answer.remote()
        asks = [model.ask(question(1)), model.ask(question(2, within=("fail",)))]
        good, bad = await asyncio.gather(*asks, return_exceptions=True)
        assert isinstance(good, Answer)
        assert str(bad) == "not this one"
        asks = [model.ask(question(3)), model.ask(question(4, within=("break",)))]
        found = await asyncio.gather(*asks, return_exceptions=True)
        assert ["a model that is broken" in str(one) for one in found] == [True, True]
        assert asked(await model.ask(question(5))) == [5]
        assert await handle.asked.remote() == [[1, 2], [3, 4], [5]]

    asyncio.run(run())


def test_all_who_come_first_ask_once_what_the_model_is(handle: DeploymentHandle[Any]) -> None:
    async def run() -> None:
        model = caller(handle)
        await handle.hold.remote()
        first, *others = [asyncio.create_task(model.known()) for _ in range(3)]
        await asyncio.sleep(0.1)
        first.cancel()
        await handle.answer.remote()
        assert [one["image_size_px"] for one in await asyncio.gather(*others)] == [SIZE, SIZE]
        assert await handle.asked.remote() == [[]]

    asyncio.run(run())


def test_a_model_that_starts_for_too_long_is_told_as_such_at_the_deadline(handle: DeploymentHandle[Any]) -> None:
    async def run() -> list[BaseException | Answer]:
        model = caller(handle)
        await handle.hold.remote()
        deadline = time.monotonic() + 0.5
        # The first one's call waits for a replica, the second one for its turn.
        found = await asyncio.gather(
            *(model.ask(question(*range(4)), deadline) for _ in range(3)), return_exceptions=True
        )
        assert 0.4 < time.monotonic() - deadline + 0.5 < 5
        await handle.answer.remote()
        assert asked(await model.ask(question(7), time.monotonic() + 60)) == [7]
        return found

    for problem in asyncio.run(run()):
        assert isinstance(problem, Problem)
        assert (problem.status, problem.headers) == (503, {"Retry-After": "5"})
