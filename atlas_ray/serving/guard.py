"""The checks that every request passes before its body is read: token, rate, size and time."""

import asyncio
import base64
import binascii
import time
from collections import Counter
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atlas_ray.serving.access import RateLimit, TokenTable
from atlas_ray.serving.memory import MemoryBudget, RequestBudget
from atlas_ray.serving.problems import Problem
from atlas_ray.serving.settings import MIB, ServeConfig, is_loopback

OPEN_PATHS = ("/healthz", "/readyz")
"""Paths that are answered without a token."""
ANONYMOUS = "anonymous"
"""The caller's name for requests without a token."""
BUDGET = "atlas_ray.budget"
"""Key of the ASGI scope under which the guard leaves the request's memory budget."""


class Served(Protocol):
    """The gateway as the guard sees it."""

    config: ServeConfig
    draining: bool
    """Whether it is stopping, and refuses new requests."""
    running: int
    """Requests that are being answered, as the guard counts them."""


class Guard:
    """An ASGI application that checks requests before it passes them to another one."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        config = served.config
        self.app = app
        self._served = served
        self._config = config
        self._running = Counter[str]()
        self._origins = set(config.origins()) - {"*"}
        self._tokens = TokenTable(config.tokens, config.tokens_file, strict=False)
        self._rate = RateLimit(config.requests_per_s, config.burst)
        self._memory = MemoryBudget(
            max_bytes=int(config.max_held_mib * MIB), max_request_bytes=int(config.max_body_mib * MIB)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        scope["root_path"] = self._config.root_path
        self._served.running += 1
        budget = scope[BUDGET] = RequestBudget(self._memory)
        try:
            if scope["path"] in OPEN_PATHS:
                await self.app(scope, self._bounded(receive, budget), send)
            else:
                await self._let_through(scope, self._bounded(receive, budget), send)
        except Problem as problem:
            await problem.response()(scope, receive, send)
        finally:
            budget.close()
            self._served.running -= 1

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._served.draining:
            raise Problem(
                503, "draining", "this endpoint is shutting down", {"Retry-After": "1", "Connection": "close"}
            )
        headers = Headers(scope=scope)
        caller = self._caller(scope, headers)
        if wait := self._rate.wait_s(caller):
            raise Problem(
                429,
                "too_many_requests",
                f"{caller!r} may ask {self._config.requests_per_s:g} times a second; wait {wait:.1f} s",
                {"Retry-After": str(max(1, round(wait + 0.5)))},
            )
        length = headers.get("content-length", "0")
        limit = self._memory.max_request_bytes
        if not length.isdecimal() or int(length) > limit:
            raise Problem(413, "too_large", f"Content-Length is {length[:20]}; a request has at most {limit} bytes")
        max_running = self._config.requests_at_once
        if max_running and self._running[caller] >= max_running:
            raise Problem(
                429,
                "too_many_requests",
                f"{caller!r} has {max_running} requests running, as many as allowed",
                {"Retry-After": "1"},
            )
        self._running[caller] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._running[caller] -= 1

    def _caller(self, scope: Scope, headers: Headers) -> str:
        """Return the caller's name.

        Raises:
            Problem: 401 without a known token, 403 for a page of another site.
        """
        kind, _, value = headers.get("authorization", "").partition(" ")
        token = value.strip()
        if kind.lower() == "basic":  # a browser's password prompt, for the page
            token = _password(token)
            # A browser repeats a stored password for this address, even for a page of another site.
            if scope["method"] != "GET" and not _same_site(headers):
                raise Problem(403, "cross_site", "the request comes from a page of another site; send a bearer token")
        if kind.lower() in ("basic", "bearer") and token:
            if name := self._tokens.name_of(token):
                return name
        elif self._config.allow_anonymous:
            host = (scope.get("client") or ("", 0))[0]
            known = scope["method"] == "GET" or _same_site(headers) or headers.get("origin") in self._origins
            if is_loopback(host) and _is_local(headers) and known:
                return ANONYMOUS
        offers = 'Bearer realm="atlas_ray"'
        if "text/html" in headers.get("accept", ""):
            offers = 'Basic realm="atlas_ray: any name, the token as password", charset="UTF-8"'
        raise Problem(401, "not_authenticated", "send a known token: Authorization: Bearer TOKEN", {"WWW-Authenticate": offers})  # fmt: skip # noqa: E501

    def _bounded(self, receive: Receive, budget: RequestBudget) -> Receive:
        """Wrap `receive` so that the body keeps to the memory budget and the timeout."""
        deadline = time.monotonic() + self._config.request_timeout_s
        complete = False

        async def bounded() -> Message:
            nonlocal complete
            if complete:  # from here on only the disconnect of the caller comes, at any time
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0))
            except TimeoutError:
                limit = self._config.request_timeout_s
                raise Problem(408, "request_timeout", f"the body did not come within {limit:g} s") from None
            if message["type"] == "http.request":
                budget.reserve(len(message.get("body", b"")))
                complete = not message.get("more_body", False)
            return message

        return bounded


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_local(headers: Headers) -> bool:
    """Return whether the Host header is this machine's: a foreign name could be made to resolve to it."""
    return is_loopback(headers.get("host", "").rsplit(":", 1)[0].strip("[]"))


def _same_site(headers: Headers) -> bool:
    """Return whether a request comes from no page, or from a page of this endpoint.

    A page of another site can send a GET, but cannot read its answer.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site in ("none", "same-origin")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")
