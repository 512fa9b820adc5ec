"""The deployment that takes requests, fetches and decodes their pictures, and asks the models."""

import asyncio
import random
import time
from collections.abc import Awaitable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from ray.serve.handle import DeploymentHandle
from ray.serve.metrics import Counter, Histogram

from atlas_ray.errors import NOT_A_NUMBER, ItemError, TaxonomyError
from atlas_ray.modalities import texts_of
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.texts import has_words
from atlas_ray.reports.attention import overlays, seen
from atlas_ray.serving.autoscaling import PRODUCTS
from atlas_ray.serving.caller import ModelCaller
from atlas_ray.serving.decoder import Decoder
from atlas_ray.serving.memory import RequestBudget
from atlas_ray.serving.model import STAGE_BOUNDARIES
from atlas_ray.serving.problems import Problem
from atlas_ray.serving.question import Answer, Pixels, Question
from atlas_ray.serving.settings import MIB, ServeConfig
from atlas_ray.serving.sources import Sources
from atlas_ray.taxonomy import CategoryPath, parse_path

Result = TypeVar("Result")
MAX_WAIT_SHARE = 0.25
"""Refuse new requests once the oldest in a queue has waited for this share of `request_timeout_s`."""
REDO_PAUSE_S = (0.05, 0.3)
"""Bounds of the pause, in seconds, before products are asked about again because the model has changed."""
REQUESTS_PER_PICTURE = 8
"""Running requests that load a gateway as much as one picture that waits to be decoded."""
READY_TIMEOUT_S = 2.0
"""Seconds that a model has to answer the readiness check."""
NO_PICTURE = ItemError("no_picture", "attention maps need a picture, and this product has none")
NO_INPUT = ItemError("nothing_to_go_by", "no picture, and no text that this model reads")


@dataclass(frozen=True, kw_only=True)
class CategorizeOptions:
    """Options of a request: where to search, and what to return."""

    within: str = ""
    top_k: int | None = None
    explain: bool = False

    def node(self) -> CategoryPath:
        """Return the node to search below.

        Raises:
            Problem: 422 if `within` is an invalid path.
        """
        try:
            return parse_path(self.within) if self.within.strip() else ()
        except TaxonomyError as error:
            raise Problem(422, "unknown_category", str(error)) from None


@dataclass
class NamedProduct:
    """A product of a request: its name, picture and texts, and later its result."""

    name: str
    content: bytes | ItemError | None
    """The picture's file, or the error of fetching it; None if the product has no picture."""
    texts: dict[str, str | None] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)


class Gateway:
    """The work between the network and the models: fetching, decoding, asking, and putting results together."""

    def __init__(self, config: ServeConfig, models: dict[str, DeploymentHandle[Any]]) -> None:
        self.config = config
        self.draining = False
        self.running = 0
        """Requests that are being answered."""
        self._sources = Sources(config)
        self._models = {
            name: ModelCaller(
                name,
                handle,
                batch_size=config.batch_size,
                batch_wait_s=config.batch_wait_ms / 1000,
                max_pending=config.max_queued_requests,
                patience_s=MAX_WAIT_SHARE * config.request_timeout_s,
            )
            for name, handle in models.items()
        }
        limits = PictureLimits(
            max_bytes=int(config.max_picture_mib * MIB),
            max_pixels=int(config.max_megapixels * 1_000_000),
            min_side_px=config.predictor.min_side_px,
        )
        self._drawing = ThreadPoolExecutor(1, "drawing")
        self._decoder = Decoder(
            limits, threads=config.predictor.decode_threads, patience_s=MAX_WAIT_SHARE * config.request_timeout_s
        )
        tags: Any = ("model_name", "outcome")  # Ray's annotation allows but one
        self._outcomes = Counter("atlas_ray_pictures_total", "Pictures by outcome.", tags)
        self._seconds = Histogram(
            "atlas_ray_stage_seconds", "Seconds of a stage.", STAGE_BOUNDARIES, tag_keys=("stage",)
        )

    async def drain(self) -> None:
        """Refuse new requests, and return when the running ones are answered."""
        self.draining = True
        while self.running:
            await asyncio.sleep(0.05)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load that Serve scales by; see `ScaleByProducts`."""
        # Texts, and pictures that are being fetched, wait for no thread, but load a gateway, too.
        return {PRODUCTS: max(float(self._decoder.waiting), self.running / REQUESTS_PER_PICTURE)}

    @property
    def names(self) -> list[str]:
        """Names of the served models; a request that names none goes to the first."""
        return list(self._models)

    async def ready(self) -> bool:
        """Return whether requests are taken and every model answers.

        A model that is too busy to answer counts as ready, and so does one that scales from zero.
        """
        models = self._models.values() if self.config.min_replicas else ()

        async def answers(model: ModelCaller) -> bool:
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await model.check_answers()
            except Problem as problem:
                return problem.status == 429
            except TimeoutError:
                return False
            return True

        return all(await _all(answers(model) for model in models)) and not self.draining

    async def describe(self, name: str) -> dict[str, Any]:
        """Describe a model.

        Raises:
            Problem: if no model has this name, or it does not answer.
        """
        return await self._model(name).describe()

    async def taxonomy(self, name: str) -> dict[str, Any]:
        """Return the taxonomy of a model.

        Raises:
            Problem: as `describe`.
        """
        taxonomy: dict[str, Any] = await self._model(name).call("taxonomy")
        return taxonomy

    def check_room(self, name: str) -> None:
        """Refuse a request that would wait too long, before its body is read.

        Raises:
            Problem: 429 if it would, 404 if no model has this name.
        """
        self._model(name).check_room()
        self._decoder.check_room()

    async def fetch(self, uris: Sequence[str | None], budget: RequestBudget) -> list[NamedProduct]:
        """Read the objects that a request names.

        Args:
            uris: The objects' URIs; None for a product without a picture.
            budget: The memory of the request.

        Raises:
            Problem: if the objects do not fit in the budget.
        """
        started = time.monotonic()
        named = [uri for uri in uris if uri is not None]
        contents = iter(await self._sources.read(named, budget) if named else [])
        self._seconds.observe(time.monotonic() - started, tags={"stage": "fetch"})
        return [
            NamedProduct(f"product {number}" if uri is None else uri, None if uri is None else next(contents))
            for number, uri in enumerate(uris, 1)
        ]

    async def categorize(
        self, name: str, products: list[NamedProduct], options: CategorizeOptions, deadline: float
    ) -> list[dict[str, Any]]:
        """Return the result of every product: its category path, or an error.

        Args:
            name: The model to ask.
            products: The products; their results are filled in.
            options: Where to search, and what to return.
            deadline: When the answer is too late, by the monotonic clock. A request that has waited in a queue for
                half of the time that it had left is refused, so that it can be sent again.

        Raises:
            Problem: if the whole request is invalid, or the model has no room.
        """
        node = options.node()
        model = self._model(name)
        todo = products
        while todo := await self._attempt(model, todo, node, options, deadline):
            # Replicas of an old and a new model may alternate; the request's own timeout ends this.
            await asyncio.sleep(random.uniform(*REDO_PAUSE_S))
        for picture in products:
            outcome = picture.result["error"]["code"] if "error" in picture.result else "answered"
            self._outcomes.inc(1, tags={"model_name": name, "outcome": outcome})
        return [{"name": picture.name, **picture.result} for picture in products]

    async def _attempt(
        self,
        model: ModelCaller,
        products: list[NamedProduct],
        node: CategoryPath,
        options: CategorizeOptions,
        deadline: float,
    ) -> list[NamedProduct]:
        """Decode pictures and ask about the products; return those to ask about again, if the model has changed."""
        described = await model.known()
        size: int = described["image_size_px"]
        texts = texts_of(described["reads"])
        if options.explain and not described["explains"]:
            described = await model.describe()  # the model may have been replaced since
        if options.explain and not described["explains"]:
            raise Problem(
                422, "cannot_explain", f"model {model.name!r} is no encoder-decoder, and has no attention maps"
            )
        answerable = []
        for product, pixels in await self._decode(products, size, deadline):
            has_text = any(has_words(product.texts.get(text), text) for text in texts)
            if pixels is not None or (has_text and not options.explain):
                answerable.append((product, pixels))
            else:
                missing = NO_PICTURE if options.explain else NO_INPUT
                error = product.content if isinstance(product.content, ItemError) else missing
                product.result = {"error": {"code": error.code, "message": error.message}}
        if not answerable:
            return []
        limit = self.config.batch_size
        chunks = [answerable[start : start + limit] for start in range(0, len(answerable), limit)]
        started = time.monotonic()
        answers: list[Answer] = await _all(
            model.ask(_question(chunk, size, texts, node, options), deadline) for chunk in chunks
        )
        self._seconds.observe(time.monotonic() - started, tags={"stage": "ask"})
        again: list[NamedProduct] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            if answer.error:
                raise Problem(422, *answer.error)
            if answer.rows is None:
                changes = {"image_size_px": answer.image_size_px, "reads": list(answer.modalities)}
                model.described = (model.described or described) | changes
                again += [picture for picture, _ in chunk]
                continue
            for place, (picture, _) in enumerate(chunk):
                picture.result = _result(answer, place, options)
                if isinstance(picture.content, ItemError) and "error" not in picture.result:
                    picture.result["picture_error"] = str(picture.content)
            if answer.maps is not None:
                await asyncio.get_running_loop().run_in_executor(self._drawing, _draw, chunk, answer.maps)
        return again

    async def _decode(
        self, products: list[NamedProduct], size_px: int, deadline: float
    ) -> list[tuple[NamedProduct, Pixels | None]]:
        """Return each product with its pixels, or None; an invalid picture's error becomes the product's content."""
        started = time.monotonic()
        files = [product.content for product in products if size_px and isinstance(product.content, bytes)]
        results = iter(await self._decoder.decode(files, size_px, (started + deadline) / 2))
        self._seconds.observe(time.monotonic() - started, tags={"stage": "decode"})
        decoded: list[tuple[NamedProduct, Pixels | None]] = []
        for product in products:
            pixels = next(results) if size_px and isinstance(product.content, bytes) else None
            if isinstance(pixels, ItemError):
                product.content, pixels = pixels, None
            decoded.append((product, pixels))
        return decoded

    def _model(self, name: str) -> ModelCaller:
        if name not in self._models:
            raise Problem(404, "unknown_model", f"no model {name!r:.100}; there are {', '.join(self._models)}")
        return self._models[name]


async def _all(awaitables: Iterable[Awaitable[Result]]) -> list[Result]:
    """Wait for all; if one fails, cancel the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def _question(
    chunk: Sequence[tuple[NamedProduct, Pixels | None]],
    size_px: int,
    texts: Sequence[str],
    node: CategoryPath,
    options: CategorizeOptions,
) -> Question:
    seen = tuple(pixels is not None for _, pixels in chunk)
    blank = np.zeros((3, size_px, size_px), np.uint8)
    return Question(
        np.stack([blank if pixels is None else pixels for _, pixels in chunk]),
        node,
        options.explain,
        {text: [product.texts.get(text) for product, _ in chunk] for text in texts},
        () if all(seen) else seen,
    )


def _result(answer: Answer, place: int, options: CategorizeOptions) -> dict[str, Any]:
    assert answer.rows is not None
    row = dict(answer.rows[place])
    if all(value is None for value in row.values()):
        return {"error": {"code": NOT_A_NUMBER.code, "message": NOT_A_NUMBER.message}}
    if options.top_k is not None and "alternatives" in row:
        row["alternatives"] = row["alternatives"][: options.top_k - 1]
    return {**row, "model_id": answer.model_id, "taxonomy_id": answer.taxonomy_id}


def _draw(chunk: Sequence[tuple[NamedProduct, Pixels | None]], maps: Any) -> None:
    """Add the attention maps to the results of pictures."""
    for (product, pixels), attention in zip(chunk, maps, strict=True):
        if pixels is not None and "error" not in product.result:
            levels = len(product.result["category_path"])
            product.result |= {"attention": overlays(attention, levels), "picture": seen(pixels)}
