"""The deployment that takes requests: it fetches and decodes pictures, and asks the models."""

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.metrics import Counter, Histogram
from starlette.types import ASGIApp

from atlas_ray.errors import ItemError, TaxonomyError
from atlas_ray.images import PictureLimits, decode_batch
from atlas_ray.serving.attention import overlays, seen
from atlas_ray.serving.config import MIB, ServeConfig
from atlas_ray.serving.model import STAGE_BOUNDARIES, Answer, Question
from atlas_ray.serving.problems import Problem, busy
from atlas_ray.serving.sources import Sources
from atlas_ray.taxonomy import CategoryPath, parse_path

ATTEMPTS = 3
"""How often a model is asked: a replica may die, or a new model take pictures of another size."""


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
class NamedPicture:
    """A picture of a request: a file that came with it, or an object that it names."""

    name: str
    content: bytes | ItemError
    result: dict[str, Any] = field(default_factory=dict)


class Gateway:
    """What stands between the network and the models."""

    def __init__(self, config: ServeConfig, models: dict[str, DeploymentHandle[Any]]) -> None:
        self.config = config
        self.sources = Sources(config)
        self._models = models
        self._limits = PictureLimits(max_bytes=int(config.max_picture_mib * MIB))
        self._described: dict[str, dict[str, Any]] = {}
        threads = min(os.cpu_count() or 1, 16)
        # Each of these threads would start OpenMP threads of its own to resize.
        self._pool = ThreadPoolExecutor(threads, "decode", initializer=torch.set_num_threads, initargs=(1,))
        tags: Any = ("model_name", "outcome")  # Ray's annotation allows but one
        self._outcomes = Counter("atlas_ray_pictures_total", "Pictures by outcome.", tags)
        self._seconds = Histogram(
            "atlas_ray_stage_seconds", "Seconds of a stage.", STAGE_BOUNDARIES, tag_keys=("stage",)
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the HTTP interface; Serve calls this when the replica starts."""
        from atlas_ray.serving.api import build_api

        return build_api(self)

    @property
    def names(self) -> list[str]:
        """The models that are served; the first is asked where none is named."""
        return list(self._models)

    async def ready(self) -> bool:
        """Tell whether every model answers."""
        try:
            await asyncio.wait_for(asyncio.gather(*(self.describe(name) for name in self._models)), 2.0)
        except (Problem, TimeoutError):
            return False
        return True

    async def describe(self, name: str) -> dict[str, Any]:
        """Return what a model is.

        Raises:
            Problem: where there is none of this name, or none that answers.
        """
        found: dict[str, Any] = await self._call(name, "describe")
        self._described[name] = found
        return {"name": name, **found}

    async def taxonomy(self, name: str) -> dict[str, Any]:
        """Return what a model chooses from.

        Raises:
            Problem: as `describe`.
        """
        found: dict[str, Any] = await self._call(name, "taxonomy")
        return found

    async def fetch(self, uris: Sequence[str]) -> list[NamedPicture]:
        """Read the objects that a request names."""
        started = time.monotonic()
        contents = await self.sources.read(uris)
        self._seconds.observe(time.monotonic() - started, tags={"stage": "fetch"})
        return [NamedPicture(uri, content) for uri, content in zip(uris, contents, strict=True)]

    async def categorize(self, name: str, pictures: list[NamedPicture], ask: Ask) -> list[dict[str, Any]]:
        """Answer for every picture: its category path, or why it has none.

        Raises:
            Problem: where the whole request is at fault, or the model has no room.
        """
        self._check_name(name)
        node = ask.node()
        todo = [picture for picture in pictures if not isinstance(picture.content, ItemError)]
        for _ in range(ATTEMPTS):
            todo = await self._attempt(name, todo, node, ask)
            if not todo:
                break
        else:
            raise Problem(503, "unavailable", f"model {name!r} is being replaced; try again", {"Retry-After": "1"})
        for picture in pictures:
            if isinstance(picture.content, ItemError):
                picture.result = {"error": {"code": picture.content.code, "message": picture.content.message}}
            outcome = picture.result["error"]["code"] if "error" in picture.result else "answered"
            self._outcomes.inc(1, tags={"model_name": name, "outcome": outcome})
        return [{"name": picture.name, **picture.result} for picture in pictures]

    async def _attempt(
        self, name: str, pictures: list[NamedPicture], node: CategoryPath, ask: Ask
    ) -> list[NamedPicture]:
        """Decode pictures and ask for them; return those that a model of another size has to see again."""
        if not pictures:
            return []
        if name not in self._described:
            await self.describe(name)
        size: int = self._described[name]["image_size_px"]
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        contents = [picture.content for picture in pictures if isinstance(picture.content, bytes)]
        pixels, refused = await loop.run_in_executor(self._pool, self._decode, contents, size)
        self._seconds.observe(time.monotonic() - started, tags={"stage": "decode"})
        for index, error in refused.items():
            pictures[index].content = error
        good = [index for index in range(len(pictures)) if index not in refused]
        limit = self.config.predictor.batch_size
        chunks = [good[start : start + limit] for start in range(0, len(good), limit)]
        started = time.monotonic()
        answers: list[Answer] = await asyncio.gather(
            *(self._call(name, "ask", Question(pixels[chunk].numpy(), node, ask.explain)) for chunk in chunks)
        )
        self._seconds.observe(time.monotonic() - started, tags={"stage": "ask"})
        again = []
        for chunk, answer in zip(chunks, answers, strict=True):
            if answer.error:
                code, message = answer.error
                raise Problem(422, code, message)
            if answer.rows is None:
                self._described[name] = {**self._described[name], "image_size_px": answer.image_size_px}
                again += [pictures[index] for index in chunk]
                continue
            for place, index in enumerate(chunk):
                pictures[index].result = _result(answer, place, ask)
                if answer.maps is not None:
                    pictures[index].result["picture"] = seen(pixels[index].numpy())
        return again

    def _decode(self, contents: list[bytes], size_px: int) -> tuple[torch.Tensor, dict[int, Any]]:
        return decode_batch(contents, size_px, limits=self._limits)

    async def _call(self, name: str, method: str, *arguments: Any) -> Any:
        """Call a model's replica, another one where that dies; what it is asked changes nothing."""
        self._check_name(name)
        handle = getattr(self._models[name], method)
        for attempt in range(ATTEMPTS):
            try:
                return await handle.remote(*arguments)
            except BackPressureError:
                raise busy(f"model {name!r}") from None
            except (RayActorError, DeploymentUnavailableError) as error:
                if attempt + 1 == ATTEMPTS:
                    reason = str(error).splitlines()[0]
                    raise Problem(
                        503, "unavailable", f"model {name!r}: {reason}; try again", {"Retry-After": "5"}
                    ) from None
        raise AssertionError("unreachable: ATTEMPTS is at least 1")

    def _check_name(self, name: str) -> None:
        if name not in self._models:
            raise Problem(404, "unknown_model", f"no model {name!r}; there are {', '.join(self._models)}")


def _result(answer: Answer, place: int, ask: Ask) -> dict[str, Any]:
    assert answer.rows is not None
    row = dict(answer.rows[place])
    if ask.top_k is not None:
        row["alternatives"] = row["alternatives"][: ask.top_k - 1]
    if answer.maps is not None:
        row["attention"] = overlays(answer.maps[place], len(row["category_path"]))
    return {**row, "model_id": answer.model_id, "taxonomy_id": answer.taxonomy_id}
