"""The spider: from a store's listings to its products, each page with an outcome in the frontier."""

import dataclasses
import re
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import urlsplit

import scrapy
from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider, DontCloseSpider
from scrapy.extensions.throttle import AutoThrottle
from scrapy.http import Response
from scrapy.robotstxt import RobotParser
from twisted.python.failure import Failure

from atlas_ray.crawl.browser import render_request
from atlas_ray.crawl.failures import outcome_of
from atlas_ray.crawl.frontier import Frontier, Kind, Outcome, Visit
from atlas_ray.crawl.links import in_domains, next_page, product_links
from atlas_ray.crawl.middlewares import GateMiddleware, RobotsMiddleware
from atlas_ray.crawl.store import Store
from atlas_ray.errors import RunError
from atlas_ray.extraction.extract import NotAProduct, extract
from atlas_ray.extraction.page import Page
from atlas_ray.io.robots import FORBIDDEN_BY_ROBOTS

ROBOTS_META = "//meta[translate(@name, 'ROBTS', 'robts') = 'robots']/@content"
MAX_CRAWL_DELAY_S = 60.0
"""Longest delay between requests that a robots.txt can impose; some ask for a day."""
QUEUED_PER_SLOT = 4
"""Requests handed to Scrapy for each that may run at a time; a bound, so that memory does not grow with the shop."""


class StoreSpider(scrapy.Spider):
    """Crawls one store."""

    name = "store"

    def __init__(self, *, store: Store, frontier: Frontier, max_pages: int) -> None:
        super().__init__()
        self._store = store
        self._frontier = frontier
        self._left = max(0, max_pages - frontier.finished())
        self._open = 0

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        """Make the spider of a crawl, connected to the signals that it handles."""
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider._idle, signals.spider_idle)
        crawler.signals.connect(spider._callback_failed, signals.spider_error)
        crawler.signals.connect(spider._robots_parsed, signals.robots_parsed)
        return spider

    async def start(self) -> AsyncIterator[Any]:
        """Yield requests for the oldest waiting URLs."""
        for request in self._take():
            yield request

    def parse(self, response: Response, visit: Visit) -> list[Request]:
        """Read a page; return the next requests."""
        assert response.request is not None
        content_type = (response.headers.get("Content-Type") or b"").decode("latin-1")
        page = Page(url=response.request.url, body=response.body, content_type=content_type)
        if not page.is_html:
            return self._finish(visit, Outcome("not_html", f"{content_type or 'no content type'}"))
        header = response.headers.getlist("X-Robots-Tag")
        directives = _directives([*(value.decode("latin-1") for value in header), *page.tree.xpath(ROBOTS_META)])
        if "noai" in directives:
            return self._finish(visit, Outcome("noai", "the page asks not to be used for machine learning"))
        if self._store.render and not response.meta.get("playwright"):
            return [render_request(response)]
        if visit.kind == "listing":
            return self._finish(visit, self._read_listing(page))
        return self._finish(visit, self._read_product(page, visit, with_pictures="noimageai" not in directives))

    def failed(self, failure: Failure) -> list[Request]:
        """Record why a page could not be fetched; return the next requests."""
        request: Request = failure.request  # type: ignore[attr-defined]
        assert failure.value is not None
        outcome = outcome_of(failure.value, request)
        if outcome.code == FORBIDDEN_BY_ROBOTS:
            gate = self.crawler.get_downloader_middleware(GateMiddleware)
            assert gate is not None
            outcome = gate.unread_robots.get(urlsplit(request.url).netloc, outcome)
        return self._finish(request.cb_kwargs["visit"], outcome)

    def _read_listing(self, page: Page) -> Outcome:
        links: list[tuple[str, Kind]] = [(url, "product") for url in product_links(page, self._store)]
        following = next_page(page, self._store)
        if following is not None:
            links.append((following, "listing"))
        if not links:
            return Outcome("empty_listing", "no product and no next page; see the store's product_links and next_page")
        return Outcome("listing", links=tuple(links))

    def _read_product(self, page: Page, visit: Visit, *, with_pictures: bool) -> Outcome:
        product = extract(page, self._store.fields)
        if isinstance(product, NotAProduct):
            return Outcome("not_a_product", product.reason)
        pictures = [url for url in product.image_urls if with_pictures and self._may_ask(url)]
        row = {field.name: getattr(product, field.name) for field in dataclasses.fields(product)} | {
            "origins": dict(product.origins),
            "image_urls": pictures,
            "forbidden_image_urls": [url for url in product.image_urls if url not in pictures],
            "noimageai": not with_pictures,
            "store": self._store.name,
            "category_path": self._store.start_urls[visit.start].category_path or None,
            "page_url": page.url,
            "crawled_at": datetime.now(UTC).isoformat(),
        }
        return Outcome("product", product=row)

    def _may_ask(self, picture: str) -> bool:
        """Return whether the robots.txt of a picture's host allows it, as far as the crawl has read it.

        Pictures are fetched later, by what asks each host itself.
        """
        robots = self.crawler.get_downloader_middleware(RobotsMiddleware)
        assert robots is not None
        rules = robots.rules.get(urlsplit(picture).netloc)
        return rules is None or rules.allowed(picture, self.crawler.settings["ROBOTSTXT_USER_AGENT"])

    def _finish(self, visit: Visit, outcome: Outcome) -> list[Request]:
        try:
            self._frontier.finish(visit, outcome)
            self._open -= 1
            return self._take()
        except RunError as error:  # `crawl_store` raises it: what became of further pages would be lost
            raise CloseSpider("frontier") from error

    def _take(self) -> list[Request]:
        """Return requests for the next URLs that wait, as many as Scrapy should have."""
        requests: list[Request] = []
        if self._frontier.broken:
            return requests
        room = min(QUEUED_PER_SLOT * self._store.concurrency - self._open, self._left)
        while room > 0 and (visits := self._frontier.take(room)):
            for visit in visits:
                try:
                    request = Request(visit.url, self.parse, errback=self.failed, cb_kwargs={"visit": visit})
                except ValueError as error:
                    self._frontier.finish(visit, Outcome("unsupported_uri", str(error)[:300]))
                else:
                    requests.append(request)
                    self._open += 1
                    self._left -= 1
                    room -= 1
        return requests

    def _idle(self) -> None:
        """Continue with waiting URLs when Scrapy has none left."""
        requests = self._take()
        for request in requests:
            self.crawler.engine.crawl(request)
        if requests:
            raise DontCloseSpider

    def _callback_failed(self, failure: Failure, response: object) -> None:
        """Record a page on which the code itself failed; Scrapy has logged the traceback."""
        if isinstance(response, Response) and not self._frontier.broken:
            outcome = Outcome("internal_error", f"{failure.type}: {str(failure.value)[:300]}")
            self._frontier.finish(response.cb_kwargs["visit"], outcome)
            self._open -= 1

    def _robots_parsed(self, robotparser: RobotParser, request: Request) -> None:
        """Keep to the Crawl-delay of a robots.txt of the store's."""
        if not in_domains(request.url, self._store.allowed_domains):
            return
        delay_s = robotparser.crawl_delay(self.crawler.settings["ROBOTSTXT_USER_AGENT"])
        throttle = self.crawler.get_extension(AutoThrottle)
        if delay_s is None or throttle is None:
            return
        throttle.mindelay = max(throttle.mindelay, min(delay_s, MAX_CRAWL_DELAY_S))
        for slot in self.crawler.engine.downloader.slots.values():
            slot.delay = max(slot.delay, throttle.mindelay)


def _directives(values: Iterable[str]) -> set[str]:
    """Return the words of X-Robots-Tag headers and robots elements, whichever robot they name."""
    return {word for value in values for word in re.findall(r"[a-z]+", value.lower())}
