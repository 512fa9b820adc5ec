"""What every request passes before anything reads it: who asks, how often, how much and how long."""

import asyncio
import base64
import binascii
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atlas_ray.serving.access import RateLimit, TokenTable
from atlas_ray.serving.config import MIB, ServeConfig, is_loopback
from atlas_ray.serving.problems import Problem

OPEN = ("/healthz", "/readyz")
"""What is answered without a token."""
ANYONE = "anonymous"


class Guard:
    """An ASGI application that lets through to another one what may pass."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app = app
        self._config = config
        self._tokens = TokenTable(config.tokens, config.tokens_file)
        self._rate = RateLimit(config.requests_per_s, config.burst)
        self._max_body = int(config.max_body_mib * MIB)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            if scope["path"] not in OPEN:
                self._check(scope)
            await self._app(scope, self._bounded(receive), send)
        except Problem as problem:
            await problem.response()(scope, receive, send)

    def _check(self, scope: Scope) -> None:
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
        if not length.isdecimal() or int(length) > self._max_body:
            raise self._too_large(f"Content-Length is {length[:20]}")

    def _caller(self, scope: Scope, headers: Headers) -> str:
        """Return who asks."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        token = value.strip()
        if kind.lower() == "basic":  # a browser's password prompt, for the page
            token = _password(token)
            # A browser sends what it was told once to this address, also for a page of another site.
            if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
                raise Problem(403, "cross_site", "a page of another site asks; send a bearer token")
        if kind.lower() in ("basic", "bearer") and token:
            if name := self._tokens.name_of(token):
                return name
        elif self._config.allow_anonymous:
            host = (scope.get("client") or ("", 0))[0]
            if is_loopback(host) and _is_local(headers):
                return ANYONE
        offers = 'Bearer realm="atlas_ray"'
        if "text/html" in headers.get("accept", ""):
            offers = 'Basic realm="atlas_ray: any name, the token as password", charset="UTF-8"'
        raise Problem(401, "not_authenticated", "send a known token: Authorization: Bearer TOKEN", {"WWW-Authenticate": offers})  # fmt: skip # noqa: E501

    def _bounded(self, receive: Receive) -> Receive:
        """Count the bytes of a body as they come, and the time that it takes."""
        deadline = time.monotonic() + self._config.request_timeout_s
        count = 0
        complete = False

        async def bounded() -> Message:
            nonlocal count, complete
            if complete:  # what comes now is that the caller went away, whenever that is
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0))
            except TimeoutError:
                limit = self._config.request_timeout_s
                raise Problem(408, "request_timeout", f"the body did not come within {limit:g} s") from None
            if message["type"] == "http.request":
                count += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if count > self._max_body:
                    raise self._too_large("more came")
            return message

        return bounded

    def _too_large(self, found: str) -> Problem:
        return Problem(413, "too_large", f"{found}; a request has at most {self._max_body} bytes")


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_local(headers: Headers) -> bool:
    """Tell whether a request is for this machine by name, and from no page of another site.

    Without a token nothing else would keep a page that somebody opens from asking, or a name of
    somebody's that is made to lead here.
    """
    host = headers.get("host", "").rsplit(":", 1)[0].strip("[]")
    return is_loopback(host) and headers.get("sec-fetch-site", "none") in ("none", "same-origin")
