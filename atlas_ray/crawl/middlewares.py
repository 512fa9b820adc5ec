"""Scrapy middlewares: checks of each request, robots.txt, and pauses before retries."""

import asyncio
import random
from typing import Self
from urllib.parse import urlsplit

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.http import Response
from scrapy.robotstxt import RobotParser

from atlas_ray.crawl.failures import Refused, outcome_of
from atlas_ray.crawl.frontier import Outcome
from atlas_ray.crawl.links import in_domains
from atlas_ray.crawl.settings import MAX_URL_CHARACTERS
from atlas_ray.crawl.store import Store
from atlas_ray.errors import FetchError
from atlas_ray.io.robots import robots_text

DENY_ALL = b"User-agent: *\nDisallow: /\n"
MAX_PAUSE_S = 60.0
"""Longest pause before a retry, whatever the server asks for."""


class GateMiddleware:
    """Refuses what must not be requested: each hop of a redirect passes here, too.

    It also gives robots.txt the meaning of RFC 9309, section 2.3.1: a shop that answers 4xx has
    none, one that cannot be reached or answers 5xx allows nothing.

    Attributes:
        unread_robots: Host and port of the shops whose robots.txt could not be read, each with why.
    """

    def __init__(self, crawler: Crawler, store: Store) -> None:
        self._rule = crawler.settings["ADDRESS_RULE"]
        self._domains = store.allowed_domains
        self.unread_robots: dict[str, Outcome] = {}

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Make the gate of a crawl."""
        return cls(crawler, crawler.settings["STORE"])

    def process_request(self, request: Request) -> None:
        """Refuse forbidden addresses, other sites, and URLs without end."""
        if len(request.url) > MAX_URL_CHARACTERS:
            raise Refused("unsupported_uri", f"{request.url[:120]!r}... has {len(request.url)} characters")
        try:
            self._rule.check_url(request.url)
        except FetchError as error:
            raise Refused(error.code, error.message) from None
        if not in_domains(request.url, self._domains) and not _is_robots(request):
            raise Refused("offsite", f"{request.url!r} is not on {', '.join(self._domains)}")

    def process_response(self, request: Request, response: Response) -> Response:
        """Give a robots.txt that is not one its meaning."""
        if not _is_robots(request):
            return response
        if response.status < 300:
            return response.replace(body=robots_text(response.body).encode())
        if response.status < 500 and response.status != 429:
            return response.replace(body=b"")
        self._robots_failed(request, Outcome("server_error", f"HTTP status {response.status}"))
        return response.replace(body=DENY_ALL)

    def process_exception(self, request: Request, exception: Exception) -> Response | None:
        """Take a robots.txt that cannot be read as one that allows nothing."""
        if not _is_robots(request):
            return None
        self._robots_failed(request, outcome_of(exception, request))
        return Response(request.url, body=DENY_ALL)

    def _robots_failed(self, request: Request, outcome: Outcome) -> None:
        asked = request.meta.get("redirect_urls", [request.url])[0]
        self.unread_robots[urlsplit(asked).netloc] = Outcome(outcome.code, f"robots.txt: {outcome.message}")


def _is_robots(request: Request) -> bool:
    # Scrapy asks for robots.txt alone with this mark.
    return bool(request.meta.get("dont_obey_robotstxt"))


class RobotsMiddleware(RobotsTxtMiddleware):
    """Scrapy's robots.txt rules, for one request after another.

    Where several requests wait for the same robots.txt, Scrapy 2.19 tells its rules to the first two
    only and lets the others pass.

    Attributes:
        rules: Host and port of the shops asked so far, each with its rules; None if it has none.
    """

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._turn = asyncio.Lock()
        self.rules: dict[str, RobotParser | None] = {}

    async def robot_parser(self, request: Request) -> RobotParser | None:
        """Return the rules for a request's shop, asking for its robots.txt the first time."""
        async with self._turn:
            rules: RobotParser | None = await super().robot_parser(request)
            self.rules[urlsplit(request.url).netloc] = rules
            return rules


class BackoffMiddleware:
    """Scrapy's retries, each after a longer pause, or the one that the server asks for."""

    def __init__(self, crawler: Crawler) -> None:
        self._retries = RetryMiddleware.from_crawler(crawler)
        self._backoff_s = crawler.settings.getfloat("BACKOFF_S")

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Make the middleware of a crawl."""
        return cls(crawler)

    async def process_response(self, request: Request, response: Response) -> Request | Response:
        """Ask again after a 429 or 5xx."""
        result = self._retries.process_response(request, response)
        if isinstance(result, Request):
            await self._pause(result, response.headers.get("Retry-After"))
        return result

    async def process_exception(self, request: Request, exception: Exception) -> Request | Response | None:
        """Ask again after a timeout or a broken connection."""
        if outcome_of(exception, request).code == "forbidden_address":
            return None
        result = self._retries.process_exception(request, exception)
        if isinstance(result, Request):
            await self._pause(result, None)
        return result

    async def _pause(self, request: Request, retry_after: bytes | None) -> None:
        pause_s = self._backoff_s * 2.0 ** (request.meta["retry_times"] - 1)
        if retry_after is not None and retry_after.isdigit():
            pause_s = max(pause_s, float(retry_after[:9]))
        # The pause is within the downloader, so that a failing shop is asked less altogether.
        await asyncio.sleep(min(pause_s, MAX_PAUSE_S) * random.uniform(0.75, 1.0))
