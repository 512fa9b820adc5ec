"""The HTTP interface: routes, what they read of a request, and their refusals."""

import asyncio
import importlib.resources
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from atlas_ray.modalities.texts import FIELDS
from atlas_ray.serving.documents import BODY, REFUSALS, Asked, CategorizeAnswer, CategorizeRequest
from atlas_ray.serving.gateway import Ask, Gateway, NamedProduct
from atlas_ray.serving.guard import SHARE, Guard
from atlas_ray.serving.problems import Problem
from atlas_ray.serving.sources import MAX_URI
from atlas_ray.version import __version__

logger = logging.getLogger(__name__)
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGE = "atlas_ray.serving", "page"
LOOK = "atlas_ray.reports", "look"
"""The folders that a page's files come from; what all pages look like is in `LOOK`."""
FILES = {
    "look.css": (LOOK, "text/css"),
    "page.css": (PAGE, "text/css"),
    "page.js": (PAGE, "text/javascript"),
}
MAX_FIELDS = 16
MAX_NAME = 1024
MAX_URI_BYTES = MAX_URI * 6
"""A URI of the longest kind, each of its letters escaped."""
MAX_TEXTS = 2 * 65_536
"""Bytes of a product's title and description in a JSON."""
MAX_ASKED = 65_536
"""Bytes of a form's field, and of what a JSON says beside its objects."""
BODY_FIRST_S = 0.5
"""For so long a body that does not come in time may be told so, before the whole request is."""
Values = TypeVar("Values", bound=BaseModel)
Result = TypeVar("Result")


def build_api(gateway: Gateway) -> ASGIApp:
    """Return the application of one replica."""
    # FastAPI's own documentation page takes its scripts from elsewhere.
    api = FastAPIOffline(
        redoc_url=None,
        title="atlas_ray",
        version=__version__,
        description="Category paths for product pictures.",
        responses=REFUSALS,
    )
    config = gateway.config

    @api.post("/v1/categorize", response_model=CategorizeAnswer, openapi_extra=BODY)
    async def categorize(request: Request) -> Response:
        """Give each picture its category path, from the first model."""
        return await answer(request, gateway.names[0])

    @api.post("/v1/models/{name}/categorize", response_model=CategorizeAnswer, openapi_extra=BODY)
    async def categorize_with(request: Request, name: str) -> Response:
        """Give each picture its category path, from the model of this name."""
        return await answer(request, name)

    async def answer(request: Request, name: str) -> Response:
        gateway.check_room(name)
        deadline = time.monotonic() + config.request_timeout_s

        async def results() -> list[dict[str, Any]]:
            products, ask = await read_request(request, gateway)
            return await gateway.categorize(name, products, ask, deadline)

        return JSONResponse({"results": await in_time(results(), BODY_FIRST_S)})

    async def in_time(answer: Awaitable[Result], more_s: float = 0.0) -> Result:
        try:
            async with asyncio.timeout(config.request_timeout_s + more_s):
                return await answer
        except TimeoutError:
            raise Problem(504, "timeout", f"no answer within {config.request_timeout_s:g} s") from None

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        """Name the models; the first is asked where none is named."""
        return {"models": gateway.names}

    @api.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Describe the first model."""
        return await in_time(gateway.describe(gateway.names[0]))

    @api.get("/v1/models/{name}")
    async def model_of(name: str) -> dict[str, Any]:
        """Describe the model of this name."""
        return await in_time(gateway.describe(name))

    @api.get("/v1/taxonomy")
    async def taxonomy() -> dict[str, Any]:
        """Return what the first model chooses from."""
        return await in_time(gateway.taxonomy(gateway.names[0]))

    @api.get("/v1/models/{name}/taxonomy")
    async def taxonomy_of(name: str) -> dict[str, Any]:
        """Return what the model of this name chooses from."""
        return await in_time(gateway.taxonomy(name))

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that this replica runs."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Tell whether every model answers."""
        if not await gateway.ready():
            raise Problem(503, "not_ready", "a model does not answer", {"Retry-After": "1"})
        return {"status": "ready"}

    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_read(PAGE, "index.html"), headers=PAGE_HEADERS)

    @api.get("/page/{file}", include_in_schema=False)
    async def page_file(file: str) -> Response:
        if file not in FILES:
            raise Problem(404, "not_found", f"no file {file[:100]!r}")
        folder, kind = FILES[file]
        return Response(_read(folder, file), media_type=kind, headers=PAGE_HEADERS)

    @api.exception_handler(Problem)
    async def refuse(_: Request, problem: Problem) -> Response:
        return problem.response()

    @api.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
        return Problem(error.status_code, codes.get(error.status_code, "bad_request"), detail, error.headers).response()

    @api.exception_handler(RequestValidationError)
    async def refuse_value(_: Request, error: RequestValidationError) -> Response:
        return Problem(422, "invalid_request", _first(error.errors())).response()

    @api.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        logger.error("%s %s", request.method, request.url.path, exc_info=error)
        return Problem(500, "internal", "something of ours failed; the log of this replica says what").response()

    return Guard(api, gateway)


async def read_request(request: Request, gateway: Gateway) -> tuple[list[NamedProduct], Ask]:
    """Read files or object keys, and what is asked.

    Raises:
        Problem: where it is neither, or too much.
    """
    limit = gateway.config.max_pictures
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    asked: Asked
    if kind == "application/json":
        body = await _read_json(request, limit * (MAX_URI_BYTES + MAX_TEXTS) + MAX_ASKED)
        asked = wanted = _validated(CategorizeRequest, body)
        uris = wanted.uris()
        _check_count(len(uris), limit)
        asked.texts(len(uris))  # refused before anything is fetched
        products = await gateway.fetch(uris, request.scope[SHARE])
    elif kind == "multipart/form-data":
        products, fields = await _read_form(request, limit)
        asked = _validated(Asked, fields)
        if not products:
            count = max(len(asked.title), len(asked.description))
            products = [NamedProduct(f"product {number}", None) for number in range(1, count + 1)]
        _check_count(len(products), limit)
    else:
        raise Problem(
            415,
            "unsupported_media_type",
            f"content type {kind[:100]!r}; expected multipart/form-data with files, or application/json with image_uri",
        )
    for product, texts in zip(products, asked.texts(len(products)), strict=True):
        product.texts = texts
    return products, Ask(within=asked.within, top_k=asked.top_k, explain=asked.explain)


async def _read_json(request: Request, limit: int) -> bytes:
    """Read a body that names objects; what is longer than names can be is not held."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise Problem(413, "too_large", f"the JSON has over {limit} bytes, more than max_pictures can need")
    return bytes(body)


async def _read_form(request: Request, limit: int) -> tuple[list[NamedProduct], dict[str, Any]]:
    """Read the files and the fields of a form; texts come in the files' order, "" where there is none."""
    pictures: list[NamedProduct] = []
    fields: dict[str, Any] = {}
    try:
        async with request.form(max_files=limit, max_fields=MAX_FIELDS + 2 * limit, max_part_size=MAX_ASKED) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    given = (value.filename or "").encode("utf-8", "replace").decode()[:MAX_NAME]
                    pictures.append(NamedProduct(given or f"file {len(pictures) + 1}", await value.read()))
                elif name in FIELDS:
                    fields.setdefault(name, []).append(value)
                else:
                    fields[name] = value
    except HTTPException as error:  # what the parser makes of a damaged form
        if str(error.detail).startswith(("Too many files", "Too many fields")):
            raise Problem(413, "too_large", f"more than {limit} products; a request has 1 to {limit}") from None
        raise Problem(422, "invalid_request", f"multipart/form-data: {error.detail}") from None
    except ValueError as error:  # a character set that does not fit its text
        raise Problem(422, "invalid_request", f"multipart/form-data: {str(error)[:200]}") from None
    return pictures, fields


def _validated(kind: type[Values], values: bytes | dict[str, Any]) -> Values:
    try:
        return kind.model_validate_json(values) if isinstance(values, bytes) else kind.model_validate(values)
    except ValidationError as error:
        raise Problem(422, "invalid_request", _first(error.errors(include_url=False, include_context=False))) from None


def _check_count(count: int, limit: int) -> None:
    if not count:
        raise Problem(422, "invalid_request", f"0 products; a request has 1 to {limit}")
    if count > limit:
        raise Problem(413, "too_large", f"{count} products; a request has 1 to {limit}")


def _first(errors: Sequence[Any]) -> str:
    error = errors[0]
    where = ".".join(str(part) for part in error["loc"])[:200] or "the body"
    return f"{where}: {error['msg'][:200]}, found {error.get('input')!r:.100}"


def _read(folder: tuple[str, str], file: str) -> bytes:
    return importlib.resources.files(folder[0]).joinpath(folder[1], file).read_bytes()
