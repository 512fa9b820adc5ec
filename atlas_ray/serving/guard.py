"""What every request passes before anything reads it: who asks, how often, how much and how long."""

import asyncio
import base64
import binascii
import time
from collections import Counter
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atlas_ray.serving.access import RateLimit, TokenTable
from atlas_ray.serving.problems import Problem
from atlas_ray.serving.room import Room, Share
from atlas_ray.serving.settings import MIB, ServeConfig, is_loopback

OPEN = ("/healthz", "/readyz")
"""What is answered without a token."""
ANYONE = "anonymous"
SHARE = "atlas_ray.share"
"""Where a request's scope has what it takes of the memory."""


class Served(Protocol):
    """What the guard stands before."""

    config: ServeConfig
    draining: bool
    """Whether it is about to go, and takes no more."""
    running: int
    """Requests that are being answered; the guard counts them."""


class Guard:
    """An ASGI application that lets through to another one what may pass."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        config = served.config
        self.app = app
        self._served = served
        self._config = config
        self._running = Counter[str]()
        self._tokens = TokenTable(config.tokens, config.tokens_file, strict=False)
        self._rate = RateLimit(config.requests_per_s, config.burst)
        self._room = Room(most=int(config.max_held_mib * MIB), most_a_request=int(config.max_body_mib * MIB))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        self._served.running += 1
        share = scope[SHARE] = Share(self._room)
        try:
            if scope["path"] in OPEN:
                await self.app(scope, self._bounded(receive, share), send)
            else:
                await self._let_through(scope, self._bounded(receive, share), send)
        except Problem as problem:
            await problem.response()(scope, receive, send)
        finally:
            share.end()
            self._served.running -= 1

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._served.draining:
            raise Problem(503, "draining", "this endpoint is about to end", {"Retry-After": "1", "Connection": "close"})
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
        limit = self._room.most_a_request
        if not length.isdecimal() or int(length) > limit:
            raise Problem(413, "too_large", f"Content-Length is {length[:20]}; a request has at most {limit} bytes")
        most = self._config.requests_at_once
        if most and self._running[caller] >= most:
            raise Problem(429, "too_many_requests", f"{caller!r} has {most} requests running", {"Retry-After": "1"})
        self._running[caller] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._running[caller] -= 1

    def _caller(self, scope: Scope, headers: Headers) -> str:
        """Return who asks."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        token = value.strip()
        if kind.lower() == "basic":  # a browser's password prompt, for the page
            token = _password(token)
            # A browser sends what it was told once to this address, also for a page of another site.
            if scope["method"] != "GET" and not _from_here(headers):
                raise Problem(403, "cross_site", "a page of another site asks; send a bearer token")
        if kind.lower() in ("basic", "bearer") and token:
            if name := self._tokens.name_of(token):
                return name
        elif self._config.allow_anonymous:
            host = (scope.get("client") or ("", 0))[0]
            if is_loopback(host) and _is_local(headers) and (scope["method"] == "GET" or _from_here(headers)):
                return ANYONE
        offers = 'Bearer realm="atlas_ray"'
        if "text/html" in headers.get("accept", ""):
            offers = 'Basic realm="atlas_ray: any name, the token as password", charset="UTF-8"'
        raise Problem(401, "not_authenticated", "send a known token: Authorization: Bearer TOKEN", {"WWW-Authenticate": offers})  # fmt: skip # noqa: E501

    def _bounded(self, receive: Receive, share: Share) -> Receive:
        """Count the bytes of a body as they come, and the time that it takes."""
        deadline = time.monotonic() + self._config.request_timeout_s
        complete = False

        async def bounded() -> Message:
            nonlocal complete
            if complete:  # what comes now is that the caller went away, whenever that is
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0))
            except TimeoutError:
                limit = self._config.request_timeout_s
                raise Problem(408, "request_timeout", f"the body did not come within {limit:g} s") from None
            if message["type"] == "http.request":
                share.take(len(message.get("body", b"")))
                complete = not message.get("more_body", False)
            return message

        return bounded


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_local(headers: Headers) -> bool:
    """Tell whether a request names this machine: somebody's own name may be made to lead here."""
    return is_loopback(headers.get("host", "").rsplit(":", 1)[0].strip("[]"))


def _from_here(headers: Headers) -> bool:
    """Tell whether a request comes from no page, or from one of this endpoint's own.

    What other sites' pages get by GET they cannot read.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site in ("none", "same-origin")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")
