"""Downloads of many pictures over HTTP, each with its own outcome.

Nothing that a server sends is trusted: where a name leads is checked when the connection is made and
again after each redirect, and bytes are counted as they arrive, after decompression.
"""

import asyncio
import functools
import math
import random
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Self, TypeVar
from urllib.parse import quote, urljoin

import aiohttp
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from atlas_ray.errors import RETRYABLE_CODES, FetchError, ItemError
from atlas_ray.io.addresses import AddressRule
from atlas_ray.io.objects import Reserve, no_limit
from atlas_ray.io.robots import MAX_ROBOTS_BYTES, RobotsFiles
from atlas_ray.version import __version__

Answer = TypeVar("Answer")
Result = TypeVar("Result")
USER_AGENT = f"atlas_ray/{__version__}"
MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 10.0
MAX_RETRY_AFTER_S = 60.0
MAX_HOSTS = 20_000
"""The largest number of hosts whose pace is remembered, since their names come from catalogues and requests."""
DEAD_AFTER_ROUNDS = 5
DEAD_FOR_S = 60.0
STATUS_CODES = {
    401: "forbidden",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    410: "not_found",
    429: "rate_limited",
}
NO_AI = re.compile(r"\bno(image)?ai\b", re.IGNORECASE)
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "AVIF": "avif", "TIFF": "tiff"}
"""File name endings of the accepted picture formats, by Pillow's name (those of
`atlas_ray.modalities.picture_files.FORMATS`)."""


@dataclass(frozen=True)
class Download:
    """A picture file as a server sent it."""

    content: bytes
    kind: str
    """The picture's format, a key of `EXTENSIONS`, told from the first bytes."""
    final_url: str
    """The URL that the redirects led to."""
    content_type: str | None
    """The Content-Type header of the response."""


KIND_BYTES = 64
"""The number of leading bytes that suffice to tell a picture's format."""
HTTP_URL = re.compile(r"https?://[^/?#\x00-\x20\x7f]+(?P<rest>([/?][^#]*)?)(#.*)?", re.IGNORECASE | re.DOTALL)
SENDABLE = "".join(map(chr, range(0x21, 0x7F)))


def picture_kind(content: bytes | bytearray) -> str | None:
    """Tell the format of a picture file from its first bytes; None if it is not an accepted one."""
    for kind, magic in (
        ("JPEG", b"\xff\xd8\xff"),
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("GIF", (b"GIF87a", b"GIF89a")),
        ("BMP", b"BM"),
        ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ):
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp" and (b"avif" in content[8:64] or b"avis" in content[8:64]):
        return "AVIF"
    return None


Use = Callable[[Download], Awaitable[Result]]
Read = Callable[["_Host", URL, aiohttp.ClientResponse], Awaitable[Answer]]
"""A function that reads an HTTP response that is not a redirect."""


def wire_url(text: str) -> URL:
    """Read a URL that is requested as it is written: a signature holds for that text alone.

    No escape is added or taken away; only spaces, control characters and what is not ASCII, which no
    request can carry, are escaped. The fragment is left out.

    Raises:
        ValueError: if the text is not an http(s) URL.
    """
    match = HTTP_URL.fullmatch(text)
    if match is None:
        raise ValueError("expected http://HOST/... or https://HOST/...")
    url = URL(text)
    if not url.host or "@" in url.authority:
        raise ValueError("expected a host, without credentials")
    rest = quote(match["rest"].encode("utf-8", "surrogateescape"), safe=SENDABLE)
    return URL(f"{url.origin()}{'' if rest.startswith('/') else '/'}{rest}", encoded=True)


def redirect_target(url: URL, location: str) -> str:
    """Return the URL of a Location header, resolved against the request's and otherwise unchanged."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
        return location
    if location.startswith("/"):
        return f"{url.scheme}:{location}" if location.startswith("//") else f"{url.origin()}{location}"
    return urljoin(str(url), location)


class Downloader:
    """A downloader of pictures, with one event loop in its own thread.

    The codes of `FetchError`: dns, timeout, not_found, forbidden (also any other refusal of the
    4xx kind), too_large, not_an_image, forbidden_address, server_error, rate_limited,
    too_many_redirects, unreachable, unsupported_uri, forbidden_by_robots, noai (the server asks that it is
    not used for machine learning). Those of `RETRYABLE_CODES` are retried. A host that gives no answer to five
    requests one after the other, or nothing but 429 for most of a minute, and has given no other answer
    for a minute, is left alone for a minute; its pictures are `unreachable` then, at once.
    """

    def __init__(
        self,
        *,
        rule: AddressRule,
        concurrency: int = 64,
        per_host_concurrency: int = 16,
        per_host_rate: float = 0.0,
        timeout_s: float = 30.0,
        attempts: int = 3,
        max_bytes: int = 32 * 1024 * 1024,
        user_agent: str = USER_AGENT,
        obey_robots: bool = False,
        ignore_robots: frozenset[str] = frozenset(),
    ) -> None:
        """Start the event loop.

        Args:
            rule: Which addresses may be connected to.
            concurrency: The number of concurrent downloads, which are held in memory.
            per_host_concurrency: The number of concurrent downloads from one host.
            per_host_rate: The largest number of requests per second to one host; 0 for no limit.
            timeout_s: The time limit of one request, from connecting to the last byte.
            attempts: How often a picture is requested.
            max_bytes: The size of the largest accepted picture, decompressed.
            user_agent: The User-Agent header sent to servers.
            obey_robots: Whether to ask for the robots.txt of each host, and keep to it.
            ignore_robots: `HOST` or `HOST:PORT` of hosts whose robots.txt is not requested.
        """
        self._rule = rule
        self._robots = RobotsFiles(self._robots_file, agent=user_agent, ignored=ignore_robots) if obey_robots else None
        self._attempts = attempts
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(concurrency)
        self._host = functools.partial(_Host, concurrency=per_host_concurrency, rate=per_host_rate)
        self._hosts: dict[str, _Host] = {}
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="downloads", daemon=True)
        self._thread.start()
        opened = asyncio.run_coroutine_threadsafe(self._open(user_agent), self._loop)
        self._session: aiohttp.ClientSession = opened.result()

    async def _open(self, user_agent: str) -> aiohttp.ClientSession:
        connect_s = min(CONNECT_TIMEOUT_S, self._timeout_s)
        self._loop.set_default_executor(ThreadPoolExecutor(32, thread_name_prefix="names"))
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, resolver=_CheckedResolver(self._rule, 0.8 * connect_s), ttl_dns_cache=300
            ),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=connect_s),
            headers={"User-Agent": user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def map(self, urls: Sequence[str], use: Use[Result]) -> list[Result | ItemError]:
        """Download pictures and pass each on as soon as it is there.

        Args:
            urls: The pictures to download.
            use: Makes a result of a download, in the loop of the downloads: it must not block. To
                hand the work to threads costs more than a download does, for each waits for the
                interpreter's lock at every file and socket.

        Returns:
            What `use` returned, or the `ItemError` of the download or of `use`, in the order of
            the URLs. Another error of `use` ends the call.
        """
        return asyncio.run_coroutine_threadsafe(self._all(urls, use), self._loop).result()

    async def fetch(self, url: str, reserve: Reserve) -> Download | ItemError:
        """Download one picture, for another event loop; who waits no longer ends it.

        Args:
            url: The picture to download.
            reserve: Called with the number of bytes before they are kept; if it raises, the download and this call end.
        """
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._picture(url, _itself, reserve), self._loop)
        )

    def close(self) -> None:
        """Close the connections and end the threads."""
        asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result()
        asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _all(self, urls: Sequence[str], use: Use[Result]) -> list[Result | ItemError]:
        return await asyncio.gather(*(self._picture(url, use) for url in urls))

    async def _picture(self, url: str, use: Use[Result], reserve: Reserve = no_limit) -> Result | ItemError:
        return await self._outcome(url, functools.partial(self._read_picture, reserve=reserve), use, self._robots)

    async def _robots_file(self, url: str) -> bytes | ItemError:
        outcome = await self._outcome(url, self._read_robots, _itself, None)
        looping = isinstance(outcome, ItemError) and outcome.code == "too_many_redirects"
        return b"" if looping else outcome  # RFC 9309, 2.3.1.2: as if there were none

    async def _outcome(
        self, url: str, read: Read[Answer], use: Callable[[Answer], Awaitable[Result]], robots: RobotsFiles | None
    ) -> Result | ItemError:
        for attempt in range(1, self._attempts + 1):
            try:
                return await self._follow(url, read, use, robots)
            except _HostDownError as error:
                return error
            except ItemError as error:
                if attempt == self._attempts or error.code not in RETRYABLE_CODES:
                    return error
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(0.5 * 2**attempt, 30.0))
        raise AssertionError("unreachable: attempts is at least 1")

    async def _follow(
        self, url: str, read: Read[Answer], use: Callable[[Answer], Awaitable[Result]], robots: RobotsFiles | None
    ) -> Result:
        """Ask for a URL, and for those that it redirects to."""
        target = self._checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            if robots and (refusal := await robots.check(target)):
                raise _HostDownError(refusal.code, refusal.message)
            name = target.host or ""
            host = self._hosts.pop(name, None) or self._host(name)
            self._hosts[name] = host  # the one that was asked last stands last
            if len(self._hosts) > MAX_HOSTS:
                del self._hosts[next(iter(self._hosts))]
            async with host.slots:
                await host.turn()
                async with self._slots:
                    answer = await self._ask(host, target, read, use)
            if not isinstance(answer, _Redirect):
                return answer
            target = self._checked(answer.url)
        raise FetchError("too_many_redirects", f"{url[:200]}: more than {MAX_REDIRECTS}; the last to {target!s:.200}")

    def _checked(self, text: str) -> URL:
        """Read a URL; the rule sees it as the client reads it, so that no two readings differ."""
        try:
            url = wire_url(text)
        except ValueError as error:
            raise FetchError("unsupported_uri", f"{text[:200]!r}: {error}") from None
        self._rule.check_url(str(url))
        return url

    async def _ask(
        self, host: "_Host", url: URL, read: Read[Answer], use: Callable[[Answer], Awaitable[Result]]
    ) -> "Result | _Redirect":
        started = time.monotonic()
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                    host.answered()
                    return _Redirect(redirect_target(url, answer.headers["Location"]))
                content = await read(host, url, answer)
        except FetchError as error:
            if error.code == "rate_limited":
                host.refused()
            else:
                host.answered()
            raise
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            host.failed(started)
            raise self._explained(url, error) from None
        host.answered()
        return await use(content)

    async def _read_robots(self, host: "_Host", url: URL, answer: aiohttp.ClientResponse) -> bytes:
        """Read the body of a robots.txt; any refusal of the 4xx kind but 429 says that there is none."""
        if answer.status == 429 or answer.status >= 500:
            self._check_status(host, url, answer)
        content = bytearray()
        if 200 <= answer.status < 300:
            async for chunk in answer.content.iter_any():
                content += chunk
                if len(content) >= MAX_ROBOTS_BYTES:
                    break
        return bytes(content[:MAX_ROBOTS_BYTES])

    def _check_status(self, host: "_Host", url: URL, answer: aiohttp.ClientResponse) -> None:
        status = answer.status
        if 200 <= status < 300:
            return
        if status in (429, 503):
            host.pause(_retry_after_s(answer.headers.get("Retry-After", "")))
        code = STATUS_CODES.get(status, "forbidden" if 400 <= status < 500 else "server_error")
        raise FetchError(code, f"{url!s:.200}: HTTP {status} {answer.reason or ''}"[:300])

    async def _read_picture(
        self, host: "_Host", url: URL, answer: aiohttp.ClientResponse, reserve: Reserve
    ) -> Download:
        """Check the head of an answer and read its body.

        The bytes decide what is a picture, and not what the server calls it: many call every file text/plain.
        """
        self._check_status(host, url, answer)
        if NO_AI.search(",".join(answer.headers.getall("X-Robots-Tag", ()))):
            raise FetchError("noai", f"{url!s:.200}: the server asks that it is not used for machine learning")
        if (answer.content_length or 0) > self._max_bytes:
            raise self._too_large(url, f"{answer.content_length} bytes")
        content = bytearray()
        kind: str | None = None
        async for chunk in answer.content.iter_any():
            if len(content) + len(chunk) > self._max_bytes:
                raise self._too_large(url, "more bytes than that came")
            reserve(len(chunk))
            content += chunk
            if kind is None and len(content) >= KIND_BYTES and (kind := picture_kind(content)) is None:
                break  # a page, or a film: the rest of it says no more
        kind = kind or picture_kind(content)
        if kind is None:
            called = answer.headers.get("Content-Type", "nothing")[:80]
            found = bytes(content[:8])
            raise FetchError(
                "not_an_image", f"{url!s:.200}: the first bytes are {found!r}; the server calls it {called!r}"
            )
        return Download(bytes(content), kind, str(url), answer.headers.get("Content-Type"))

    def _too_large(self, url: URL, found: str) -> FetchError:
        return FetchError("too_large", f"{url!s:.200}: {found}; at most {self._max_bytes} are read")

    def _explained(self, url: URL, error: Exception) -> FetchError:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, TimeoutError):
            return FetchError("timeout", f"{url!s:.200}: no complete answer within {self._timeout_s:g} s")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return FetchError("dns", f"{url!s:.200}: the host has no address: {text}")
        if isinstance(error, ValueError):  # a name or a Location that cannot be one
            return FetchError("unsupported_uri", f"{url!s:.200}: {text}")
        return FetchError("unreachable", f"{url!s:.200}: {text}")


async def _itself(answer: Answer) -> Answer:
    return answer


@dataclass(frozen=True)
class _Redirect:
    url: str


class _HostDownError(FetchError):
    """A host that is left alone for now, or forbids the request; retrying at once is of no use."""


class _Host:
    """One host: its slots, its pace, and whether it answers at all."""

    def __init__(self, name: str, *, concurrency: int, rate: float) -> None:
        self.slots = asyncio.Semaphore(concurrency)
        self._name = name
        self._interval_s = 1 / rate if rate else 0.0
        self._next_at = 0.0
        self._failed_rounds = 0
        self._failed_at = 0.0
        self._answered_at = -math.inf

    async def turn(self) -> None:
        """Wait until the host may be asked again."""
        now = time.monotonic()
        at = max(self._next_at, now)
        self._next_at = at + self._interval_s
        if at > now:
            await asyncio.sleep(at - now)
        if self._dead(time.monotonic()):
            raise _HostDownError(
                "unreachable",
                f"{self._name[:200]} gave no answer, or 429, {self._failed_rounds} times in a row; not asked again",
            )

    def _dead(self, now: float) -> bool:
        """Tell whether to leave the host alone; one that has answered before is given a minute to come back."""
        silent = self._failed_rounds >= DEAD_AFTER_ROUNDS and now >= self._answered_at + DEAD_FOR_S
        return silent and now < self._failed_at + DEAD_FOR_S

    def pause(self, seconds: float) -> None:
        """Ask nothing of the host for a while."""
        self._next_at = max(self._next_at, time.monotonic() + seconds)

    def answered(self) -> None:
        """Note an answer, of whatever kind."""
        self._failed_rounds = 0
        self._answered_at = time.monotonic()

    def failed(self, started: float) -> None:
        """Note a request without an answer; those that ran at the same time count as one."""
        if started >= self._failed_at:
            self._failed_rounds += 1
            self._failed_at = time.monotonic()

    def refused(self) -> None:
        """Note a 429; those that come quickly, one after the other, count as one."""
        now = time.monotonic()
        if now >= self._failed_at + DEAD_FOR_S / DEAD_AFTER_ROUNDS:
            self._failed_rounds += 1
            self._failed_at = now


class _CheckedResolver(AbstractResolver):
    """A resolver that returns only addresses that the rule allows; the connection goes to the checked address.

    It gives up before the request does, so that a silent name server is not taken for a silent shop.
    """

    def __init__(self, rule: AddressRule, timeout_s: float) -> None:
        self._rule = rule
        self._timeout_s = timeout_s
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await self._resolver.resolve(host, port, family)
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, f"no name server answered within {self._timeout_s:g} s") from None
        for address in addresses:
            self._rule.check_address(host, port, address["host"])
        return addresses

    async def close(self) -> None:
        await self._resolver.close()


def _retry_after_s(text: str) -> float:
    """Read a Retry-After header, seconds or a date; 0 if it is neither."""
    try:
        seconds = float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
