"""The deployment of a model, which answers the questions of many requests together."""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from ray import serve
from ray.serve.metrics import Histogram

from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import ConfigError, TaxonomyError
from atlas_ray.modalities import texts_of
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.device import name_of_dtype
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.prediction.predictors import build_predictor
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.serving.autoscaling import BUSY, PRODUCTS, BusyTime
from atlas_ray.serving.question import Answer, Question
from atlas_ray.serving.queue import PendingQuestion, QuestionQueue

MAX_FAILURES = 20
"""Consecutive failed questions after which the replica, and not the questions, is held to be at fault."""
STAGE_BOUNDARIES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
logger = logging.getLogger(__name__)


def _count(batch: Sequence[PendingQuestion]) -> int:
    """Count the products of a batch."""
    return sum(len(pending.question) for pending in batch)


def _products(questions: Sequence[Question], modalities: Sequence[str]) -> Products:
    """Join the products of several questions."""
    seen = None
    if any(question.seen for question in questions):
        seen_parts = [question.seen or (True,) * len(question) for question in questions]
        seen = torch.tensor([has_picture for part in seen_parts for has_picture in part], dtype=torch.bool)
    texts = {name: [text for question in questions for text in question.texts[name]] for name in texts_of(modalities)}
    return Products(torch.from_numpy(np.concatenate([question.pixels for question in questions])), texts, seen)


def _joined(answers: Sequence[Answer]) -> Answer:
    """Join the answers to the parts of a question."""
    for answer in answers:
        if len(answers) == 1 or answer.rows is None:
            return answer
    maps = [answer.maps for answer in answers if answer.maps is not None]
    rows = [row for answer in answers for row in answer.rows or ()]
    return replace(answers[0], rows=rows, maps=np.concatenate(maps) if maps else None)


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers: settings and histories tell where its files are, and grow."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


class Model:
    """One trained model, loaded and warmed up."""

    def __init__(self, uri: str, config: PredictorConfig) -> None:
        artifact = load_artifact(uri, target=None)
        self._replica = secrets.token_hex(8)
        self._kind = artifact.kind
        self._metrics = figures(artifact.metrics)
        self._predictor = build_predictor(artifact, config)
        self._labels = dict(zip(artifact.labels.names, artifact.thresholds, strict=True)) if artifact.labels else None
        self._batch_size = self._predictor.batch_size
        self._thread = ThreadPoolExecutor(1, "model")
        self._queue = QuestionQueue(self._batch_size)
        self._busy = BusyTime()
        self._held = 0
        """Products that wait here or run through the model."""
        self._failed = 0
        """Consecutive questions that failed."""
        self._running: asyncio.Task[None] | None = None
        self._sizes = Histogram(
            "atlas_ray_batch_pictures", "Pictures that the model took at once.", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
        )
        self._seconds = Histogram(
            "atlas_ray_stage_seconds", "Seconds of a stage.", STAGE_BOUNDARIES, tag_keys=("stage",)
        )
        self._enter.set_max_batch_size(self._batch_size)  # type: ignore[attr-defined]
        self._enter.set_batch_wait_timeout_s(0.0)  # type: ignore[attr-defined]  # the gateways wait
        self._thread.submit(self._predictor.warm_up).result()  # before the first request

    async def describe(self) -> dict[str, Any]:
        """Describe the model to any caller: no path of this machine, no history of its training."""
        predictor = self._predictor
        return {
            "model_id": predictor.model_id,
            "kind": self._kind,
            "taxonomy_id": predictor.taxonomy.id,
            "image_size_px": predictor.image_size_px,
            "search": predictor.search,
            "precision": name_of_dtype(predictor.dtype),
            "engine": predictor.engine,
            "top_k": predictor.config.top_k,
            "reads": list(predictor.modalities),
            "answers": "path" if self._labels is None else "labels",
            "explains": predictor.explains,
            "metrics": self._metrics,
        }

    async def taxonomy(self) -> dict[str, Any]:
        """Return the taxonomy whose leaves the model predicts, or its labels with their thresholds."""
        taxonomy = self._predictor.taxonomy
        return {
            "taxonomy_id": taxonomy.id,
            "name": taxonomy.name,
            "version": taxonomy.version,
            "category_paths": [list(path) for path in taxonomy.leaves],
            "labels": self._labels,
        }

    def check_health(self) -> None:
        """Let Serve replace this replica if it answers nothing any more, as on a GPU whose driver has failed.

        Raises:
            RuntimeError: if its last `MAX_FAILURES` questions failed.
        """
        if self._failed >= MAX_FAILURES:
            raise RuntimeError(f"the last {self._failed} questions failed")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load that Serve scales by; see `ScaleByProducts`."""
        return {PRODUCTS: float(self._held), BUSY: self._busy.share()}

    async def ask(self, questions: list[Question]) -> list[Answer | Exception]:
        """Answer questions of one or several requests; if one fails, the others are answered all the same."""
        count = sum(map(len, questions))
        self._held += count
        try:
            outcomes = await asyncio.gather(*(self._ask(question) for question in questions), return_exceptions=True)
        finally:
            self._held -= count
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
                raise outcome
        # Not every exception can be pickled; the log has it whole.
        return [
            outcome if isinstance(outcome, Answer) else RuntimeError(f"{type(outcome).__name__}: {outcome}")
            for outcome in outcomes
        ]

    async def _ask(self, question: Question) -> Answer:
        size, limit = self._predictor.image_size_px, self._batch_size
        other_texts = question.texts.keys() != set(texts_of(self._predictor.modalities))
        if other_texts or question.pixels.shape[1:] != (3, size, size):
            return self._answer_with()
        # A gateway of an older or newer version may have another batch size.
        parts = [PendingQuestion(question.part(start, start + limit)) for start in range(0, len(question), limit)]
        try:
            await asyncio.gather(*(self._enter(part) for part in parts))
            return _joined(await asyncio.gather(*(part.answer for part in parts)))
        finally:
            for part in parts:
                part.answer.cancel()  # if the caller went away, or another part failed

    @serve.batch(batch_size_fn=_count)
    async def _enter(self, together: list[PendingQuestion]) -> list[None]:
        """Queue questions that arrived together.

        Serve closes a batch after a fixed time even while the model is busy, so batches would be small
        under load. From the queue, full batches are taken whenever the model is free.
        """
        for pending in together:
            self._queue.add(pending)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._work())
        return [None] * len(together)

    async def _work(self) -> None:
        """Run the model until the queue is empty."""
        loop = asyncio.get_running_loop()
        try:
            while batch := self._queue.next_batch():
                self._sizes.observe(_count(batch))
                questions = [pending.question for pending in batch]
                answers = await loop.run_in_executor(self._thread, self._answers_or_errors, questions)
                for pending, answer in zip(batch, answers, strict=True):
                    pending.settle(answer)
        finally:
            self._running = None

    def _answers_or_errors(self, questions: list[Question]) -> list[Answer | Exception]:
        """Answer questions together; if that fails, answer each alone, so that only the bad ones fail."""
        try:
            with self._busy:
                answers: list[Answer | Exception] = list(self._answers(questions))
        except Exception as error:
            logger.error("a batch of %d questions failed", len(questions), exc_info=error)
            if len(questions) == 1:
                self._failed += 1
                return [error]
        else:
            self._failed = 0
            return answers
        return [self._answers_or_errors([question])[0] for question in questions]

    def _answers(self, questions: list[Question]) -> list[Answer]:
        """Run the model once over all questions, and once more for each that wants an explanation."""
        started = time.monotonic()
        answers: dict[int, Answer] = {}
        scopes: dict[int, Any] = {}
        for index, question in enumerate(questions):
            try:
                scopes[index] = self._predictor.narrowed(question.within)
            except TaxonomyError as error:
                answers[index] = self._answer_with(error=("unknown_category", str(error)))
        together = [index for index in scopes if not questions[index].explain]
        if together:
            products = _products([questions[index] for index in together], self._predictor.modalities)
            row_scopes = [scopes[index] for index in together for _ in range(len(questions[index]))]
            rows = self._predictor.predict_within(products, row_scopes).to_pylist()
            start = 0
            for index in together:
                end = start + len(questions[index])
                answers[index] = self._answer_with(rows=rows[start:end])
                start = end
        for index in scopes.keys() - set(together):
            try:
                table, maps = self._explain(_products([questions[index]], self._predictor.modalities), scopes[index])
            except ConfigError as error:
                answers[index] = self._answer_with(error=("cannot_explain", str(error)))
                continue
            answers[index] = self._answer_with(rows=table.to_pylist(), maps=maps.numpy())
        self._seconds.observe(time.monotonic() - started, tags={"stage": "model"})
        return [answers[index] for index in range(len(questions))]

    def _explain(self, products: Products, scope: Any) -> tuple[pa.Table, torch.Tensor]:
        if not isinstance(self._predictor, PathPredictor):
            raise ConfigError(f"model {self._predictor.model_id} names labels, and has no attention maps")
        return self._predictor.explain(products, scope)

    def _answer_with(self, **fields: Any) -> Answer:
        predictor = self._predictor
        return Answer(
            self._replica,
            predictor.model_id,
            predictor.taxonomy.id,
            predictor.image_size_px,
            predictor.modalities,
            **fields,
        )
