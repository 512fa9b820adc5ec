"""The HTTP interface: routes, the reading of requests, and the answers to invalid ones."""

import asyncio
import importlib.resources
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from atlas_ray.modalities.texts import FIELDS
from atlas_ray.serving.documents import BODY, REFUSALS, CategorizeAnswer, CategorizeRequest, RequestFields
from atlas_ray.serving.gateway import CategorizeOptions, Gateway, NamedProduct
from atlas_ray.serving.guard import BUDGET, Guard
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
"""Package and folder of the page's own files."""
LOOK = "atlas_ray.reports", "look"
"""Package and folder of the style sheet that all pages share."""
FILES = {
    "look.css": (LOOK, "text/css"),
    "page.css": (PAGE, "text/css"),
    "page.js": (PAGE, "text/javascript"),
}
MAX_FIELDS = 16
"""Fields of a form, beside the texts of its products."""
MAX_NAME = 1024
"""Characters of a file's name that are kept."""
MAX_URI_BYTES = MAX_URI * 6
"""Bytes of the longest URI in JSON, if each of its characters is escaped."""
MAX_TEXT_BYTES = 2 * 65_536
"""Bytes of a product's title and description in JSON."""
MAX_FIELD_BYTES = 65_536
"""Bytes of a form's field, and of a JSON document without its URIs and texts."""
BODY_GRACE_S = 0.5
"""Seconds added to the timeout of a request, so that a slow body is refused as such (408) and not as a slow answer."""
Values = TypeVar("Values", bound=BaseModel)
Result = TypeVar("Result")


router, open_router = APIRouter(), APIRouter()


def build_api(gateway: Gateway) -> ASGIApp:
    """Return the application of one replica."""
    # FastAPI's own documentation page loads its scripts from other hosts.
    api = FastAPIOffline(
        redoc_url=None,
        title="atlas_ray",
        version=__version__,
        description="Category paths for product pictures.",
        responses=REFUSALS,
    )
    api.state.gateway = gateway
    # The guard has looked at the token before; this says in the OpenAPI document that there is one.
    bearer = HTTPBearer(auto_error=False, description="A token that `atlas-ray token NAME` made.")
    api.include_router(router, dependencies=[Depends(bearer)])
    api.include_router(open_router)
    api.add_exception_handler(Problem, _refuse)
    api.add_exception_handler(HTTPException, _refuse_route)
    api.add_exception_handler(RequestValidationError, _refuse_value)
    api.add_exception_handler(Exception, _fail)
    guarded = Guard(api, gateway)
    origins = gateway.config.origins()
    if not origins:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
        expose_headers=["Retry-After"],
    )


@router.post("/v1/categorize", response_model=CategorizeAnswer, openapi_extra=BODY)
async def categorize(request: Request) -> Response:
    """Give each picture its category path, from the first model."""
    return await _categorize(request, _gateway(request).names[0])


@router.post("/v1/models/{name}/categorize", response_model=CategorizeAnswer, openapi_extra=BODY)
async def categorize_with(request: Request, name: str) -> Response:
    """Give each picture its category path, from the model of this name."""
    return await _categorize(request, name)


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """Name the models; the first is asked if none is named."""
    return {"models": _gateway(request).names}


@router.get("/v1/model")
async def model(request: Request) -> dict[str, Any]:
    """Describe the first model."""
    return await model_of(request, _gateway(request).names[0])


@router.get("/v1/models/{name}")
async def model_of(request: Request, name: str) -> dict[str, Any]:
    """Describe the model of this name."""
    gateway = _gateway(request)
    return await _in_time(gateway.describe(name), gateway.config.request_timeout_s)


@router.get("/v1/taxonomy")
async def taxonomy(request: Request) -> dict[str, Any]:
    """Return what the first model chooses from."""
    return await taxonomy_of(request, _gateway(request).names[0])


@router.get("/v1/models/{name}/taxonomy")
async def taxonomy_of(request: Request, name: str) -> dict[str, Any]:
    """Return what the model of this name chooses from."""
    gateway = _gateway(request)
    return await _in_time(gateway.taxonomy(name), gateway.config.request_timeout_s)


@open_router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Tell that this replica runs."""
    return {"status": "ok"}


@open_router.get("/readyz")
async def readyz(request: Request) -> dict[str, str]:
    """Return whether every model answers."""
    if not await _gateway(request).ready():
        raise Problem(503, "not_ready", "a model does not answer", {"Retry-After": "1"})
    return {"status": "ready"}


@open_router.get("/", include_in_schema=False)
async def page() -> Response:
    """Return the page on which a person tries the endpoint."""
    return HTMLResponse(_read(PAGE, "index.html"), headers=PAGE_HEADERS)


@open_router.get("/page/{file}", include_in_schema=False)
async def page_file(file: str) -> Response:
    """Return a style sheet or script of the page."""
    if file not in FILES:
        raise Problem(404, "not_found", f"no file {file[:100]!r}")
    folder, media_type = FILES[file]
    return Response(_read(folder, file), media_type=media_type, headers=PAGE_HEADERS)


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def _categorize(request: Request, name: str) -> Response:
    gateway = _gateway(request)
    gateway.check_room(name)
    timeout_s = gateway.config.request_timeout_s
    deadline = time.monotonic() + timeout_s

    async def results() -> list[dict[str, Any]]:
        products, options = await read_request(request, gateway)
        return await gateway.categorize(name, products, options, deadline)

    return JSONResponse({"results": await _in_time(results(), timeout_s, BODY_GRACE_S)})


async def _in_time(answer: Awaitable[Result], timeout_s: float, grace_s: float = 0.0) -> Result:
    """Wait for an answer.

    Raises:
        Problem: 504 after the timeout and the grace.
    """
    try:
        async with asyncio.timeout(timeout_s + grace_s):
            return await answer
    except TimeoutError:
        raise Problem(504, "timeout", f"no answer within {timeout_s:g} s") from None


async def _refuse(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response()


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return Problem(error.status_code, code, detail, error.headers).response()


async def _refuse_value(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return Problem(422, "invalid_request", _first(error.errors())).response()


async def _fail(request: Request, error: Exception) -> Response:
    logger.error("%s %s", request.method, request.url.path, exc_info=error)
    return Problem(500, "internal", "an error inside the endpoint; the log of this replica has it").response()


async def read_request(request: Request, gateway: Gateway) -> tuple[list[NamedProduct], CategorizeOptions]:
    """Read the products of a request, from files or URIs, and its options.

    Raises:
        Problem: if the request has neither, or too many, or is invalid.
    """
    limit = gateway.config.max_pictures
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields: RequestFields
    if content_type == "application/json":
        body = await _read_json(request, limit * (MAX_URI_BYTES + MAX_TEXT_BYTES) + MAX_FIELD_BYTES)
        fields = document = _validated(CategorizeRequest, body)
        uris = document.uris()
        _check_count(len(uris), limit)
        document.texts(len(uris))  # refused before anything is fetched
        products = await gateway.fetch(uris, request.scope[BUDGET])
    elif content_type == "multipart/form-data":
        products, values = await _read_form(request, limit)
        fields = _validated(RequestFields, values)
        if not products:
            count = max(len(fields.title), len(fields.description))
            products = [NamedProduct(f"product {number}", None) for number in range(1, count + 1)]
        _check_count(len(products), limit)
    else:
        raise Problem(
            415,
            "unsupported_media_type",
            f"content type {content_type[:100]!r}; expected multipart/form-data with files, "
            "or application/json with image_uri",
        )
    for product, texts in zip(products, fields.texts(len(products)), strict=True):
        product.texts = texts
    return products, CategorizeOptions(within=fields.within, top_k=fields.top_k, explain=fields.explain)


async def _read_json(request: Request, limit: int) -> bytes:
    """Read the JSON body; a body that is too long is refused before it is held."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise Problem(413, "too_large", f"the JSON has over {limit} bytes, more than max_pictures can need")
    return bytes(body)


async def _read_form(request: Request, limit: int) -> tuple[list[NamedProduct], dict[str, Any]]:
    """Read the files and the fields of a form; the texts are in the files' order, "" for a missing one."""
    pictures: list[NamedProduct] = []
    fields: dict[str, Any] = {}
    try:
        async with request.form(
            max_files=limit, max_fields=MAX_FIELDS + 2 * limit, max_part_size=MAX_FIELD_BYTES
        ) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    filename = (value.filename or "").encode("utf-8", "replace").decode()[:MAX_NAME]
                    pictures.append(NamedProduct(filename or f"file {len(pictures) + 1}", await value.read()))
                elif name in FIELDS:
                    fields.setdefault(name, []).append(value)
                else:
                    fields[name] = value
    except HTTPException as error:  # a damaged form
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
