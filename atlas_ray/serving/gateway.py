"""The deployment that takes requests: it fetches and decodes pictures, and asks the models."""

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
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.products import texts_of
from atlas_ray.modalities.texts import has_words
from atlas_ray.reports.attention import overlays, seen
from atlas_ray.serving.autoscaling import PRODUCTS
from atlas_ray.serving.caller import ModelCaller
from atlas_ray.serving.decoder import Decoder
from atlas_ray.serving.model import STAGE_BOUNDARIES
from atlas_ray.serving.problems import Problem
from atlas_ray.serving.question import Answer, Pixels, Question
from atlas_ray.serving.room import Share
from atlas_ray.serving.settings import MIB, ServeConfig
from atlas_ray.serving.sources import Sources
from atlas_ray.taxonomy import CategoryPath, parse_path

Result = TypeVar("Result")
PATIENCE = 0.25
"""How long the first in a line may have waited while more are taken, of a request's time."""
ANOTHER_SIZE_PAUSE_S = (0.05, 0.3)
"""Between attempts while replicas of models of two sizes are there."""
REQUESTS_A_PICTURE = 8
"""So many requests that run count as a picture that waits to be decoded."""
READY_S = 2.0
UNSEEN = ItemError("no_picture", "where a model looked can be said of a picture alone")
NOTHING = ItemError("nothing_to_go_by", "no picture, and no text that this model reads")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a request wants to know, and how much of it."""

    within: str = ""
    top_k: int | None = None
    explain: bool = False

    def node(self) -> CategoryPath:
        """Return the node to search below.

        Raises:
            Problem: where it is no path.
        """
        try:
            return parse_path(self.within) if self.within.strip() else ()
        except TaxonomyError as error:
            raise Problem(422, "unknown_category", str(error)) from None


@dataclass
class NamedProduct:
    """A product of a request: a picture, a file that came with it or an object that it names, and texts."""

    name: str
    content: bytes | ItemError | None
    """The picture; None where there is none."""
    texts: dict[str, str | None] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)


class Gateway:
    """What stands between the network and the models."""

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
                batch_size=config.predictor.batch_size,
                batch_wait_s=config.batch_wait_ms / 1000,
                most_waiting=config.max_queued_requests,
                patience_s=PATIENCE * config.request_timeout_s,
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
            limits, threads=config.predictor.decode_threads, patience_s=PATIENCE * config.request_timeout_s
        )
        tags: Any = ("model_name", "outcome")  # Ray's annotation allows but one
        self._outcomes = Counter("atlas_ray_pictures_total", "Pictures by outcome.", tags)
        self._seconds = Histogram(
            "atlas_ray_stage_seconds", "Seconds of a stage.", STAGE_BOUNDARIES, tag_keys=("stage",)
        )

    async def drain(self) -> None:
        """Take no more requests, and return when nothing is being answered."""
        self.draining = True
        while self.running:
            await asyncio.sleep(0.05)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what Serve is to scale by; see `ScaleByProducts`."""
        # Texts and pictures that are fetched wait for no thread, but take their part of a gateway, too.
        return {PRODUCTS: max(float(self._decoder.waiting), self.running / REQUESTS_A_PICTURE)}

    @property
    def names(self) -> list[str]:
        """The models that are served; the first is asked where none is named."""
        return list(self._models)

    async def ready(self) -> bool:
        """Tell whether requests are taken, and every model answers.

        One that is too busy to answer is ready, and so is one that sleeps until it is asked.
        """
        models = self._models.values() if self.config.min_replicas else ()

        async def answers(model: ModelCaller) -> bool:
            try:
                async with asyncio.timeout(READY_S):
                    await model.check_answers()
            except Problem as problem:
                return problem.status == 429
            except TimeoutError:
                return False
            return True

        return all(await _all(answers(model) for model in models)) and not self.draining

    async def describe(self, name: str) -> dict[str, Any]:
        """Return what a model is.

        Raises:
            Problem: where there is none of this name, or none that answers.
        """
        return await self._model(name).describe()

    async def taxonomy(self, name: str) -> dict[str, Any]:
        """Return what a model chooses from.

        Raises:
            Problem: as `describe`.
        """
        found: dict[str, Any] = await self._model(name).call("taxonomy")
        return found

    def check_room(self, name: str) -> None:
        """Refuse a request that would wait too long, before its pictures are read and decoded.

        Raises:
            Problem: 429, or 404 where there is no model of this name.
        """
        self._model(name).check_room()
        self._decoder.check_room()

    async def fetch(self, uris: Sequence[str | None], share: Share) -> list[NamedProduct]:
        """Read the objects that a request names.

        Args:
            uris: Where they are; None for a product without a picture.
            share: What the request takes of the memory.

        Raises:
            Problem: where there is no room for them.
        """
        started = time.monotonic()
        named = [uri for uri in uris if uri is not None]
        contents = iter(await self._sources.read(named, share) if named else [])
        self._seconds.observe(time.monotonic() - started, tags={"stage": "fetch"})
        return [
            NamedProduct(f"product {number}" if uri is None else uri, None if uri is None else next(contents))
            for number, uri in enumerate(uris, 1)
        ]

    async def categorize(
        self, name: str, products: list[NamedProduct], ask: Ask, deadline: float
    ) -> list[dict[str, Any]]:
        """Answer for every product: its category path, or why it has none.

        Args:
            name: The model to ask.
            products: What to ask about; they are changed.
            ask: What to ask.
            deadline: By the monotonic clock, when the answer is too late. What waits in a line for half of the
                time that it has left is refused, and may be asked again.

        Raises:
            Problem: where the whole request is at fault, or the model has no room.
        """
        node = ask.node()
        model = self._model(name)
        todo = products
        while todo := await self._attempt(model, todo, node, ask, deadline):
            # Old and new replicas answer by turns; the request's own time limit ends this.
            await asyncio.sleep(random.uniform(*ANOTHER_SIZE_PAUSE_S))
        for picture in products:
            outcome = picture.result["error"]["code"] if "error" in picture.result else "answered"
            self._outcomes.inc(1, tags={"model_name": name, "outcome": outcome})
        return [{"name": picture.name, **picture.result} for picture in products]

    async def _attempt(
        self, model: ModelCaller, products: list[NamedProduct], node: CategoryPath, ask: Ask, deadline: float
    ) -> list[NamedProduct]:
        """Decode pictures and ask about the products; return those that a model of another size has to see again."""
        described = await model.known()
        size: int = described["image_size_px"]
        texts = texts_of(described["reads"])
        if ask.explain and not described["explains"]:
            described = await model.describe()  # another kind of model may have come since
        if ask.explain and not described["explains"]:
            raise Problem(
                422, "cannot_explain", f"model {model.name!r} is no encoder-decoder, and has no attention maps"
            )
        good = []
        for product, pixels in await self._decode(products, size, deadline):
            said = any(has_words(product.texts.get(text), text) for text in texts)
            if pixels is not None or (said and not ask.explain):
                good.append((product, pixels))
            else:
                missing = UNSEEN if ask.explain else NOTHING
                error = product.content if isinstance(product.content, ItemError) else missing
                product.result = {"error": {"code": error.code, "message": error.message}}
        if not good:
            return []
        limit = self.config.predictor.batch_size
        chunks = [good[start : start + limit] for start in range(0, len(good), limit)]
        started = time.monotonic()
        answers: list[Answer] = await _all(
            model.ask(_question(chunk, size, texts, node, ask), deadline) for chunk in chunks
        )
        self._seconds.observe(time.monotonic() - started, tags={"stage": "ask"})
        again: list[NamedProduct] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            if answer.error:
                raise Problem(422, *answer.error)
            if answer.rows is None:
                now = {"image_size_px": answer.image_size_px, "reads": list(answer.reads)}
                model.described = (model.described or described) | now
                again += [picture for picture, _ in chunk]
                continue
            for place, (picture, _) in enumerate(chunk):
                picture.result = _result(answer, place, ask)
                if isinstance(picture.content, ItemError) and "error" not in picture.result:
                    picture.result["picture_error"] = str(picture.content)
            if answer.maps is not None:
                await asyncio.get_running_loop().run_in_executor(self._drawing, _draw, chunk, answer.maps)
        return again

    async def _decode(
        self, products: list[NamedProduct], size_px: int, deadline: float
    ) -> list[tuple[NamedProduct, Pixels | None]]:
        """Return products each with its pixels, None where it has none; a picture that is refused becomes its error."""
        started = time.monotonic()
        files = [product.content for product in products if size_px and isinstance(product.content, bytes)]
        found = iter(await self._decoder.decode(files, size_px, (started + deadline) / 2))
        self._seconds.observe(time.monotonic() - started, tags={"stage": "decode"})
        decoded: list[tuple[NamedProduct, Pixels | None]] = []
        for product in products:
            pixels = next(found) if size_px and isinstance(product.content, bytes) else None
            if isinstance(pixels, ItemError):
                product.content, pixels = pixels, None
            decoded.append((product, pixels))
        return decoded

    def _model(self, name: str) -> ModelCaller:
        if name not in self._models:
            raise Problem(404, "unknown_model", f"no model {name!r:.100}; there are {', '.join(self._models)}")
        return self._models[name]


async def _all(awaitables: Iterable[Awaitable[Result]]) -> list[Result]:
    """Wait for all; where one fails, end the others."""
    tasks = [asyncio.ensure_future(one) for one in awaitables]
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
    ask: Ask,
) -> Question:
    seen = tuple(pixels is not None for _, pixels in chunk)
    nothing = np.zeros((3, size_px, size_px), np.uint8)
    return Question(
        np.stack([nothing if pixels is None else pixels for _, pixels in chunk]),
        node,
        ask.explain,
        {text: [product.texts.get(text) for product, _ in chunk] for text in texts},
        () if all(seen) else seen,
    )


def _result(answer: Answer, place: int, ask: Ask) -> dict[str, Any]:
    assert answer.rows is not None
    row = dict(answer.rows[place])
    if row["category_path"] is None:
        return {"error": {"code": NOT_A_NUMBER.code, "message": NOT_A_NUMBER.message}}
    if ask.top_k is not None:
        row["alternatives"] = row["alternatives"][: ask.top_k - 1]
    return {**row, "model_id": answer.model_id, "taxonomy_id": answer.taxonomy_id}


def _draw(chunk: Sequence[tuple[NamedProduct, Pixels | None]], maps: Any) -> None:
    """Add to the results of pictures where the model looked."""
    for (product, pixels), looked in zip(chunk, maps, strict=True):
        if pixels is not None and "error" not in product.result:
            levels = len(product.result["category_path"])
            product.result |= {"attention": overlays(looked, levels), "picture": seen(pixels)}
