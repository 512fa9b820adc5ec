"""What a request passes before anything reads it, without a cluster behind it."""

import asyncio
import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from atlas_ray.serving.access import new_token
from atlas_ray.serving.api import build_api
from atlas_ray.serving.guard import Guard
from atlas_ray.serving.settings import ServeConfig

TOKEN, LINE = new_token("anna")
BEARER = {"authorization": f"Bearer {TOKEN}"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(
    guard: Guard,
    headers: Mapping[str, str] = BEARER,
    *,
    path: str = "/v1/model",
    method: str = "POST",
    body: Iterable[bytes | float] = (b"",),
    client: str = "127.0.0.1",
) -> tuple[int, dict[str, str], bytes]:
    """Send a request; a number among the parts of the body is a pause in seconds."""
    parts = list(body)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        while parts and isinstance(parts[0], float):
            await asyncio.sleep(parts.pop(0))  # type: ignore[arg-type]
        if not parts:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "query_string": b"", "client": (client, 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


class Served:
    def __init__(self, **settings: Any) -> None:
        self.config = ServeConfig.of({"model": "/m", "tokens": LINE, **settings}, "a test")
        self.draining = False
        self.running = 0


class Named(Served):
    """As much of a gateway as the routes without a model need."""

    names = ("default",)


def guard(**settings: Any) -> Guard:
    return Guard(echo, Served(**settings))


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (BEARER, 200),
        ({"authorization": f"bearer  {TOKEN}"}, 200),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": f"Token {TOKEN}"}, 401),
        (basic(TOKEN), 200),
        (basic("wrong"), 401),
        ({"authorization": "Basic %%%"}, 401),
        (basic(TOKEN) | {"sec-fetch-site": "same-origin"}, 200),
        (basic(TOKEN) | {"sec-fetch-site": "cross-site"}, 403),
        (BEARER | {"sec-fetch-site": "cross-site"}, 200),
    ],
)
def test_who_may_ask(headers: dict[str, str], status: int) -> None:
    assert ask(guard(), headers)[0] == status
    assert ask(guard(), headers, path="/healthz")[0] == ask(guard(), headers, path="/readyz")[0] == 200


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, "GET", 200),  # a link to the page
        ({"sec-fetch-site": "cross-site"}, "POST", 403),
        ({"sec-fetch-site": "same-site"}, "POST", 403),
        ({"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"}, "POST", 200),  # browsers without Sec-Fetch
        ({"origin": "http://evil.example", "host": "127.0.0.1:8000"}, "POST", 403),
        ({"origin": "null", "host": "127.0.0.1:8000"}, "POST", 403),
    ],
)
def test_pages_of_other_sites_may_link_but_not_ask(headers: dict[str, str], method: str, status: int) -> None:
    assert ask(guard(), basic(TOKEN) | headers, method=method)[0] == status
    host = {"host": "localhost"} if "host" not in headers else {}
    without = ask(guard(allow_anonymous=True), headers | host, method=method)[0]
    assert without == (status if status == 200 else 401)


PAGE = "https://shop.example"


@pytest.mark.parametrize(
    ("allowed", "origin", "answered"),
    [
        ("", PAGE, False),
        (PAGE, PAGE, True),
        (f"http://localhost:3000, {PAGE}", PAGE, True),
        (PAGE, "https://shop.example.evil.example", False),
        (PAGE, "http://shop.example", False),
        ("*", "https://anyone.example", True),
    ],
)
def test_which_pages_a_browser_lets_ask(allowed: str, origin: str, answered: bool) -> None:
    api: Any = build_api(Named(cors_origins=allowed))  # type: ignore[arg-type]
    asks = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    status, headers, _ = ask(api, asks, method="OPTIONS", path="/v1/categorize")
    assert (status == 200) == answered  # the preflight has no token
    if answered:
        assert headers["access-control-allow-origin"] == ("*" if allowed == "*" else origin)
    status, headers, body = ask(api, BEARER | {"origin": origin}, method="GET", path="/v1/models")
    assert (status, body) == (200, b'{"models":["default"]}')
    assert ("access-control-allow-origin" in headers) == answered
    assert "access-control-allow-credentials" not in headers
    assert ask(api, {"origin": origin}, method="GET", path="/v1/models")[0] == 401
    assert ask(api, basic(TOKEN) | {"origin": origin}, path="/v1/categorize")[0] == 403


def test_a_page_that_may_ask_needs_no_token_where_nobody_does() -> None:
    headers = {"host": "localhost:8000", "sec-fetch-site": "cross-site"}
    local = guard(allow_anonymous=True, cors_origins="http://localhost:3000")
    assert ask(local, headers | {"origin": "http://localhost:3000"})[0] == 200
    assert ask(local, headers | {"origin": "http://localhost:3001"})[0] == 401
    assert ask(guard(allow_anonymous=True, cors_origins="*"), headers | {"origin": PAGE})[0] == 401


def test_the_document_says_that_a_token_is_needed_and_where_the_endpoint_is() -> None:
    api: Any = build_api(Named(root_path="/atlas"))  # type: ignore[arg-type]
    document = json.loads(ask(api, BEARER, method="GET", path="/openapi.json")[2])
    (name,) = document["components"]["securitySchemes"]
    assert document["components"]["securitySchemes"][name]["scheme"] == "bearer"
    needed = {path: "security" in one for path, ways in document["paths"].items() for one in ways.values()}
    assert [path for path, token in needed.items() if not token] == ["/healthz", "/readyz"]
    assert len(needed) > 6
    assert document["servers"] == [{"url": "/atlas"}]
    assert b"/atlas/openapi.json" in ask(api, BEARER, method="GET", path="/docs")[2]


def test_what_comes_while_it_drains_is_told_so() -> None:
    served = Served()
    served.draining = True
    status, headers, body = ask(Guard(echo, served))
    assert (status, headers["retry-after"], b'"code":"draining"' in body) == (503, "1", True)
    assert ask(Guard(echo, served), path="/healthz")[0] == 200
    assert served.running == 0


def test_requests_of_one_token_at_once() -> None:
    busy = guard(requests_at_once=1)

    async def both() -> list[int]:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])

        async def slow() -> dict[str, Any]:
            await asyncio.sleep(0.2)
            return {"type": "http.request", "body": b""}

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(b"authorization", BEARER["authorization"].encode())],
        }
        await asyncio.gather(busy(scope, slow, send), busy(scope, slow, send))
        await busy(scope, slow, send)
        return statuses

    assert asyncio.run(both()) == [429, 200, 200]


def test_a_browser_is_asked_for_a_password_and_a_program_for_a_token() -> None:
    assert ask(guard(), {"accept": "text/html"})[1]["www-authenticate"].startswith("Basic ")
    status, headers, body = ask(guard(), {})
    assert (status, headers["content-type"]) == (401, "application/problem+json")
    assert headers["www-authenticate"].startswith("Bearer ")
    assert b'"code":"not_authenticated"' in body


@pytest.mark.parametrize(
    ("headers", "client", "status"),
    [
        ({"host": "127.0.0.1:8000"}, "127.0.0.1", 200),
        ({"host": "localhost:8000"}, "::1", 200),
        ({"host": "[::1]:8000"}, "::1", 200),
        ({"host": "127.0.0.1:8000"}, "10.0.0.9", 401),
        ({"host": "rebound.example:8000"}, "127.0.0.1", 401),
        ({"host": "localhost:8000", "sec-fetch-site": "cross-site"}, "127.0.0.1", 401),
        ({"host": "localhost:8000", "authorization": "Bearer wrong"}, "127.0.0.1", 401),
    ],
)
def test_without_a_token_this_machine_alone_may_ask(headers: dict[str, str], client: str, status: int) -> None:
    assert ask(guard(allow_anonymous=True), headers, client=client)[0] == status


def test_how_often() -> None:
    limited = guard(requests_per_s=0.001, burst=2)
    assert [ask(limited)[0] for _ in range(3)] == [200, 200, 429]
    assert int(ask(limited)[1]["retry-after"]) > 900


def test_how_much() -> None:
    small = guard(max_body_mib=0.001)  # 1,048 bytes
    assert ask(small, body=[b"x" * 1000])[2] == b"x" * 1000
    for headers, body in (
        (BEARER | {"content-length": "1049"}, [b"never read"]),
        (BEARER | {"content-length": "9" * 50}, [b""]),
        (BEARER | {"content-length": "-1"}, [b""]),
        (BEARER, [b"x" * 600, b"x" * 600, b"x" * 600]),
    ):
        status, _, answer = ask(small, headers, body=body)
        assert (status, b'"code":"too_large"' in answer) == (413, True)


@pytest.mark.long
def test_how_much_of_all_together() -> None:
    full = guard(max_body_mib=0.001, max_held_mib=0.0015)  # 1,572 bytes for all

    async def both() -> list[int]:
        statuses: list[int] = []

        def request() -> Any:
            parts = [b"x" * 333] * 3

            async def receive() -> dict[str, Any]:
                await asyncio.sleep(0.1)
                return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

            async def send(message: Any) -> None:
                if "status" in message:
                    statuses.append(message["status"])

            headers = [(b"authorization", BEARER["authorization"].encode())]
            return full({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)

        await asyncio.gather(request(), request())
        await request()
        return statuses

    assert sorted(asyncio.run(both())) == [200, 200, 429]


def test_how_long() -> None:
    patient = guard(request_timeout_s=0.2)
    assert ask(patient, body=[b"a", 0.05, b"b"])[2] == b"ab"
    status, _, answer = ask(patient, body=[b"a", 0.1, b"b", 0.15, b"c"])
    assert (status, b'"code":"request_timeout"' in answer) == (408, True)
