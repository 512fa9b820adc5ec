"""Pages whose products appear only when their scripts have run: a Chromium that obeys the same rules.

Scrapy downloads the page like any other; the browser is given what came and runs its scripts. So
robots.txt, redirects, sizes and retries are the same for every store. Of what the scripts load each host
is asked for its robots.txt, too; pictures are not loaded at all. It goes
through a proxy of this process, which checks each address that it connects to: Playwright shows
neither the hops of a redirect nor what a name resolves to.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy_playwright.page import PageMethod

from atlas_ray.crawl.middlewares import RobotsMiddleware
from atlas_ray.errors import ConfigError, FetchError
from atlas_ray.io.addresses import AddressRule

if TYPE_CHECKING:
    from playwright.async_api import Page as BrowserPage
    from playwright.async_api import Request as BrowserRequest
    from playwright.async_api import Route

NAMES = ("chromium", "chromium-browser", "google-chrome")
SETTLE_MS = 5000
"""How long a page's scripts may load after the page itself has."""
NOT_READ = ("image", "media", "font")
"""Kinds of requests, by Playwright's names, that a page can be read without; pictures are fetched later."""
MAX_HEAD_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 10.0


def find_chromium(environment: Mapping[str, str] = os.environ) -> str:
    """Return the path of the system's Chromium: `CHROMIUM_PATH`, or the first that `PATH` has.

    Raises:
        ConfigError: if there is none.
    """
    named = environment.get("CHROMIUM_PATH")
    if named:
        if not os.access(named, os.X_OK) or os.path.isdir(named):
            raise ConfigError(f"CHROMIUM_PATH is {named!r}, which cannot be run; expected a Chromium's path")
        return named
    for name in NAMES:
        if path := shutil.which(name, path=environment.get("PATH")):
            return path
    raise ConfigError(
        f"a store with `render: true` needs a browser, and PATH has none of {', '.join(NAMES)}; "
        "install Chromium, name it with CHROMIUM_PATH, or leave the store out"
    )


class BrowserGate:
    """Refuses what a page's scripts must not request, and what is not needed to read the page.

    Attributes:
        crawler: The crawl, which asks each host for its robots.txt; set before the first page.
    """

    crawler: Crawler

    def __init__(self, rule: AddressRule) -> None:
        self._rule = rule

    async def __call__(self, request: "BrowserRequest") -> bool:
        """Return whether to refuse a request; every page that `render_request` does not give is refused."""
        if request.resource_type in NOT_READ or request.is_navigation_request():
            return True
        try:
            self._rule.check_url(request.url)
            return not await asyncio.wait_for(asyncio.shield(self._allowed(request.url)), CONNECT_TIMEOUT_S)
        except (FetchError, TimeoutError):
            return True

    async def _allowed(self, url: str) -> bool:
        robots = self.crawler.get_downloader_middleware(RobotsMiddleware)
        assert robots is not None
        rules = await robots.robot_parser(Request(url))
        return rules is None or rules.allowed(url, self.crawler.settings["ROBOTSTXT_USER_AGENT"])


def browser_settings(chromium: str, proxy_port: int, gate: BrowserGate, pages: int, timeout_s: float) -> dict[str, Any]:
    """Return Scrapy's settings for rendering.

    Args:
        chromium: The browser's path.
        proxy_port: Where a `CheckedProxy` listens.
        gate: What may be requested.
        pages: How many pages may be open at once.
        timeout_s: For one page.
    """
    handler = "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler"
    return {
        "DOWNLOAD_HANDLERS": {"http": handler, "https": handler},
        "PLAYWRIGHT_BROWSER_TYPE": "chromium",
        "PLAYWRIGHT_LAUNCH_OPTIONS": {
            "executable_path": chromium,
            # Chromium asks private addresses without its proxy unless told otherwise.
            "proxy": {"server": f"http://127.0.0.1:{proxy_port}", "bypass": "<-loopback>"},
            "args": ["--webrtc-ip-handling-policy=disable_non_proxied_udp"],
        },
        "PLAYWRIGHT_MAX_PAGES_PER_CONTEXT": pages,
        "PLAYWRIGHT_DEFAULT_NAVIGATION_TIMEOUT": timeout_s * 1000,
        "PLAYWRIGHT_ABORT_REQUEST": gate,
    }


def render_request(response: Response) -> Request:
    """Return the request that runs the scripts of a page that has been downloaded."""
    assert response.request is not None
    headers = {
        name: value.decode("latin-1")
        for name in ("Content-Type", "X-Robots-Tag")
        if (value := b", ".join(response.headers.getlist(name)))
    }

    async def give(page: "BrowserPage", request: Request) -> None:
        given = False

        async def route(route: "Route", asked: "BrowserRequest") -> None:
            nonlocal given
            if not asked.is_navigation_request():
                await route.fallback()
            elif given or asked.url != request.url:
                await route.abort("aborted")  # any other reason would put an error page in the page's place
            else:
                given = True
                await route.fulfill(status=200, headers=headers, body=response.body)

        await page.route("**", route)

    return response.request.replace(
        meta={
            "playwright": True,
            # A service worker's requests would not be seen.
            "playwright_context_kwargs": {"service_workers": "block", "accept_downloads": False},
            "playwright_page_init_callback": give,
            "playwright_page_methods": [PageMethod(_settle)],
            # What the browser takes says nothing about the shop's speed.
            "download_slot": "browser",
            "autothrottle_dont_adjust_delay": True,
        },
        dont_filter=True,
    )


async def _settle(page: "BrowserPage") -> None:
    from playwright.async_api import TimeoutError as BrowserTimeoutError

    with contextlib.suppress(BrowserTimeoutError):  # a page that never ends loading is read as it is
        await page.wait_for_load_state("networkidle", timeout=SETTLE_MS)


class CheckedProxy:
    """An HTTP proxy on loopback for the browser; it connects to checked addresses only."""

    def __init__(self, rule: AddressRule) -> None:
        """Take a port; `start` begins to listen on it."""
        self._rule = rule
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    async def start(self) -> None:
        """Begin to serve, on the running event loop, until the process ends."""
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=MAX_HEAD_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
            tunnel = method == "CONNECT"
            upstream = await self._connect(f"http://{target}/" if tunnel else target)
        except (FetchError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await _close(writer)
            return
        if tunnel:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            upstream[1].write(_direct(head, target))
        await asyncio.gather(_pipe(reader, upstream[1]), _pipe(upstream[0], writer))

    async def _connect(self, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._rule.check_url(url)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ip = str(found[0][4][0])
        self._rule.check_address(host, port, ip)
        return await asyncio.wait_for(asyncio.open_connection(ip, port), CONNECT_TIMEOUT_S)


def _direct(head: bytes, target: str) -> bytes:
    """Turn a request to a proxy into one to the server itself, for this connection alone."""
    parts = urlsplit(target)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    # One request a connection: the next one may be for another host, and must be checked.
    kept = [line for line in lines if not line.lower().startswith((b"proxy-", b"connection:"))]
    method = first.split(b" ")[0]
    return b"\r\n".join([method + b" " + path.encode() + b" HTTP/1.1", *kept, b"Connection: close", b"", b""])


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()
