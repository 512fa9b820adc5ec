"""The deployment that holds a model: it takes decoded pictures of many requests together."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray import serve
from ray.serve.metrics import Histogram

from atlas_ray.artifacts import load_artifact
from atlas_ray.decoding import Scope
from atlas_ray.errors import ConfigError, TaxonomyError
from atlas_ray.models import EncoderDecoder
from atlas_ray.predictors import PathPredictor, PredictorConfig
from atlas_ray.taxonomy import CategoryPath

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
STAGE_BOUNDARIES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
MERGED = 1_000
"""Groups of requests that may wait for the model at a time; the queue of the deployment is shorter."""


@dataclass(frozen=True)
class Question:
    """Decoded pictures of one request."""

    pixels: Pixels
    """(count, 3, size, size)."""
    within: CategoryPath = ()
    explain: bool = False


@dataclass(frozen=True)
class Answer:
    """What a model says to a question.

    Attributes:
        model_id: The artifact that answered.
        taxonomy_id: What it chose from.
        image_size_px: What it takes; the question is to be asked again where its pictures differ.
        rows: For each picture the columns of the predictions table that a search fills.
        maps: With `explain`, (count, depth, rows, columns): where it looked for each level.
        error: A code and a sentence in the place of rows.
    """

    model_id: str
    taxonomy_id: str
    image_size_px: int
    rows: list[dict[str, Any]] | None = None
    maps: "np.ndarray[Any, np.dtype[np.float32]] | None" = None
    error: tuple[str, str] | None = None


def _count(questions: Sequence[Question]) -> int:
    return sum(len(question.pixels) for question in questions)


class Model:
    """One trained model, ready."""

    def __init__(self, uri: str, config: PredictorConfig, batch_wait_s: float) -> None:
        artifact = load_artifact(uri)
        self._kind = "encoder-decoder" if isinstance(artifact.model, EncoderDecoder) else "classifier"
        self._metrics = artifact.metrics
        self._predictor = PathPredictor(artifact, config)
        self._batch_size = config.batch_size
        self._thread = ThreadPoolExecutor(1, "model")
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._sizes = Histogram(
            "atlas_ray_batch_pictures", "Pictures that the model took at once.", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
        )
        self._seconds = Histogram(
            "atlas_ray_stage_seconds", "Seconds of a stage.", STAGE_BOUNDARIES, tag_keys=("stage",)
        )
        self._gather.set_max_batch_size(config.batch_size)  # type: ignore[attr-defined]
        self._gather.set_batch_wait_timeout_s(batch_wait_s)  # type: ignore[attr-defined]
        size = self._predictor.image_size_px
        for count in (config.batch_size, 1, config.batch_size):  # warm before the first request
            self._thread.submit(self._predictor.infer, torch.zeros((count, 3, size, size), dtype=torch.uint8)).result()

    async def describe(self) -> dict[str, Any]:
        """Return what the model is."""
        predictor = self._predictor
        return {
            "model_id": predictor.model_id,
            "kind": self._kind,
            "taxonomy_id": predictor.taxonomy.id,
            "image_size_px": predictor.image_size_px,
            "search": predictor.scope.search,
            "precision": str(predictor.dtype).removeprefix("torch."),
            "top_k": predictor.config.top_k,
            "explains": self._kind == "encoder-decoder",
            "metrics": self._metrics,
        }

    async def taxonomy(self) -> dict[str, Any]:
        """Return what the model chooses from."""
        taxonomy = self._predictor.taxonomy
        return {
            "taxonomy_id": taxonomy.id,
            "name": taxonomy.name,
            "version": taxonomy.version,
            "category_paths": [list(path) for path in taxonomy.leaves],
        }

    async def ask(self, question: Question) -> Answer:
        """Answer a question of at most a batch of pictures."""
        size = self._predictor.image_size_px
        if question.pixels.shape[1:] != (3, size, size):
            return self._answer_with()
        return await self._gather(question)

    @serve.batch(batch_size_fn=_count, max_concurrent_batches=MERGED)
    async def _gather(self, questions: list[Question]) -> list[Answer]:
        """Let questions that came together wait for the model together.

        Serve closes a batch by the clock even while the model is busy with another one, so under load
        they are small; those that wait are joined to full ones here.
        """
        loop = asyncio.get_running_loop()
        mine = [(question, loop.create_future()) for question in questions]
        self._waiting.extend(mine)
        if self._running is None:
            self._running = loop.create_task(self._work())
        answers: list[Answer] = await asyncio.gather(*(future for _, future in mine))
        return answers

    async def _work(self) -> None:
        """Run the model until nothing waits."""
        try:
            while self._waiting:
                batch = [self._waiting.popleft()]
                count = len(batch[0][0].pixels)
                while self._waiting and count + len(self._waiting[0][0].pixels) <= self._batch_size:
                    batch.append(self._waiting.popleft())
                    count += len(batch[-1][0].pixels)
                self._sizes.observe(count)
                questions = [question for question, _ in batch]
                try:
                    answers: list[Any] = await asyncio.get_running_loop().run_in_executor(
                        self._thread, self._answers, questions
                    )
                except Exception as error:  # whatever it is, these requests end and the next ones are served
                    answers = [error] * len(batch)
                for (_, future), answer in zip(batch, answers, strict=True):
                    if future.done():  # its caller went away
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._running = None

    def _answers(self, questions: list[Question]) -> list[Answer]:
        """Run the network over the pictures of all questions; those to be explained go one by one."""
        started = time.monotonic()
        answers: dict[int, Answer] = {}
        scopes: dict[int, Scope] = {}
        for index, question in enumerate(questions):
            try:
                scopes[index] = self._predictor.narrowed(question.within)
            except TaxonomyError as error:
                answers[index] = self._answer_with(error=("unknown_category", str(error)))
        together = [index for index in scopes if not questions[index].explain]
        if together:
            pixels = torch.from_numpy(np.concatenate([questions[index].pixels for index in together]))
            each = [scopes[index] for index in together for _ in range(len(questions[index].pixels))]
            rows = self._predictor.predict_within(pixels, each).to_pylist()
            start = 0
            for index in together:
                end = start + len(questions[index].pixels)
                answers[index] = self._answer_with(rows=rows[start:end])
                start = end
        for index in scopes.keys() - set(together):
            try:
                table, maps = self._predictor.explain(torch.tensor(questions[index].pixels), scopes[index])
            except ConfigError as error:
                answers[index] = self._answer_with(error=("cannot_explain", str(error)))
                continue
            answers[index] = self._answer_with(rows=table.to_pylist(), maps=maps.numpy())
        self._seconds.observe(time.monotonic() - started, tags={"stage": "model"})
        return [answers[index] for index in range(len(questions))]

    def _answer_with(self, **fields: Any) -> Answer:
        predictor = self._predictor
        return Answer(predictor.model_id, predictor.taxonomy.id, predictor.image_size_px, **fields)
