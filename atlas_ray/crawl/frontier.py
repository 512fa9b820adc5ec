"""The frontier of a crawl: its URLs, the outcome of each, and the products, in one SQLite file.

Scrapy's own job folder (JOBDIR) does not outlive SIGKILL: it notes a URL as seen when it is queued,
but writes the queue's sizes and priorities only at a clean end, so a killed crawl forgets pages and
never asks for them again. Here each page's outcome, the links found on it and its product are one
transaction: what was not finished is asked for again, and a product cannot come twice.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from w3lib.url import canonicalize_url

from atlas_ray.errors import FULL_DISK, RunError, disk_full, system_number

Kind = Literal["listing", "product"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS visits (
    id INTEGER PRIMARY KEY, canonical TEXT NOT NULL UNIQUE, url TEXT NOT NULL, kind TEXT NOT NULL,
    start INTEGER NOT NULL, outcome TEXT, message TEXT
);
CREATE TABLE IF NOT EXISTS products (url TEXT PRIMARY KEY, row TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS linked (
    start INTEGER NOT NULL, canonical TEXT NOT NULL, listing INTEGER NOT NULL, PRIMARY KEY (start, canonical)
) WITHOUT ROWID;
"""
"""`linked`: what a start URL leads to: products by their identity, and addresses that another one led to before.

`listing` is the number of the visit that did so, 0 if no other one had.
"""


@dataclass(frozen=True)
class Visit:
    """One URL to ask for.

    Attributes:
        number: Its number in the frontier.
        url: The URL as it was found.
        kind: What it is expected to be.
        start: The place, in the store's list, of the start URL that it was reached from.
    """

    number: int
    url: str
    kind: Kind
    start: int


@dataclass(frozen=True)
class Outcome:
    """What became of a visit.

    Attributes:
        code: `listing`, `product`, `duplicate`, or what went wrong.
        message: A sentence for a person where something went wrong.
        links: URLs found on the page, each with what it is expected to be.
        product: The row of a product; its `url` is its identity.
    """

    code: str
    message: str | None = None
    links: tuple[tuple[str, Kind], ...] = field(default=(), repr=False)
    product: Mapping[str, Any] | None = field(default=None, repr=False)


ENDLESS = "no_new_products"
"""Outcome code of a listing that is not followed further, because it leads to no new product."""
SUCCESSES = ("listing", "product", "duplicate")
RETRYABLE_CODES = ("dns", "timeout", "unreachable", "truncated", "server_error", "too_many_requests", "render_failed")
"""Outcome codes of failures that may pass; a crawl that is started again requests these pages again."""


class Frontier:
    """The URLs of one store's crawl.

    Attributes:
        broken: Why the file could not be read or written last, which ends the crawl.
    """

    def __init__(self, path: str, *, max_idle_pages: int = 20) -> None:
        """Open the file, or make it; what an earlier process did not finish, or not get, is waiting again.

        Args:
            path: Where it is.
            max_idle_pages: After so many pages in a row without a new product a listing is not followed further.

        Raises:
            RunError: if the file cannot be read or written, here and in the methods.
        """
        self._max_idle_pages = max_idle_pages
        self._path = path
        self.broken: RunError | None = None
        with self._named():
            self._database = sqlite3.connect(path)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(SCHEMA)
            with self._database:
                self._database.execute(
                    f"UPDATE visits SET outcome = NULL, message = NULL WHERE outcome IN {RETRYABLE_CODES}"
                )
        self._last = 0  # the highest number handed out by this process; later finds are higher

    def add_starts(self, urls: Iterable[str]) -> None:
        """Add the store's start URLs; those that are known already stay as they are."""
        with self._named(), self._database:
            for start, url in enumerate(urls):
                self._add(url, "listing", start)

    def take(self, limit: int) -> list[Visit]:
        """Return waiting visits, oldest first; each is handed out once by a process."""
        with self._named():
            rows = self._database.execute(
                "SELECT id, url, kind, start FROM visits WHERE id > ? AND outcome IS NULL ORDER BY id LIMIT ?",
                (self._last, limit),
            ).fetchall()
        visits = [Visit(*row) for row in rows]
        self._last = max([self._last, *(visit.number for visit in visits)])
        return visits

    def finish(self, visit: Visit, outcome: Outcome) -> None:
        """Keep a visit's outcome with all that was found; a product known already is a `duplicate`."""
        code, message = outcome.code, outcome.message
        with self._named(), self._database:
            if outcome.product is not None:
                url, row = outcome.product["url"], json.dumps(outcome.product, ensure_ascii=False)
                added = self._database.execute("INSERT OR IGNORE INTO products VALUES (?, ?)", (_text(url), _text(row)))
                if not added.rowcount:
                    code, message = "duplicate", f"of {url}"
                # One that another start URL has led to is new to this one.
                self._database.execute(
                    "INSERT OR IGNORE INTO linked VALUES (?, ?, ?)",
                    (visit.start, f"product {_text(url)}", 0 if added.rowcount else visit.number),
                )
            products = [link for link, kind in outcome.links if kind == "product"]
            fresh = sum(self._add(link, "product", visit.start, listing=visit.number) for link in products)
            following = [link for link, kind in outcome.links if kind == "listing"]
            if following and (idle := self._idle_pages(visit, fresh > 0)) >= self._max_idle_pages:
                code = ENDLESS
                message = f"{idle} pages in a row without a new product; not followed to {following[0][:300]}"
                following = []
            for link in following:
                self._add(link, "listing", visit.start)
            self._database.execute(
                "UPDATE visits SET outcome = ?, message = ? WHERE id = ?",
                (code, None if message is None else _text(message), visit.number),
            )

    def waiting(self) -> int:
        """Return how many visits have no outcome yet."""
        return int(self._database.execute("SELECT count(*) FROM visits WHERE outcome IS NULL").fetchone()[0])

    def finished(self) -> int:
        """Return how many visits have an outcome."""
        return int(self._database.execute("SELECT count(*) FROM visits WHERE outcome IS NOT NULL").fetchone()[0])

    def outcomes(self) -> dict[str, int]:
        """Return how often each outcome came, by its code."""
        return dict(
            self._database.execute(
                "SELECT outcome, count(*) FROM visits WHERE outcome IS NOT NULL GROUP BY outcome ORDER BY 2 DESC, 1"
            )
        )

    def products(self) -> Iterator[dict[str, Any]]:
        """Yield the products' rows, in the order they were found."""
        for (row,) in self._database.execute("SELECT row FROM products ORDER BY rowid"):
            yield json.loads(row)

    def failures(self) -> Iterator[tuple[str, str, str]]:
        """Yield (url, code, message) of each visit that gave neither a listing nor a product."""
        yield from self._database.execute(
            f"SELECT url, outcome, coalesce(message, '') FROM visits WHERE outcome NOT IN {SUCCESSES} ORDER BY id"
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Turn what SQLite raises into a `RunError` that names the file."""
        try:
            yield
        except sqlite3.Error as error:
            number = system_number(error)
            told = disk_full(number, self._path) if number in FULL_DISK else None
            self.broken = told or RunError(f"{self._path}: {error}; if it is damaged, delete it to begin anew")
            raise self.broken from error

    def _idle_pages(self, visit: Visit, fresh: bool) -> int:
        """Return how many listings there were since one that led to a new product.

        A product of an earlier page that may still come counts as new, and so does one that the listings of another
        start URL have led to. A page whose products are still asked for does not count yet, nor do those after it.

        Args:
            visit: The latest listing.
            fresh: Whether it leads to URLs that were not known; then it does not count yet.
        """
        (last,) = self._database.execute(
            "SELECT coalesce(max(id), 0) FROM (SELECT id FROM visits WHERE start = ? AND kind = 'product' AND id < ? "
            f"AND outcome IN {('product', *RETRYABLE_CODES)} ORDER BY id DESC LIMIT 1)",
            (visit.start, visit.number),
        ).fetchone()
        (linked,) = self._database.execute(
            "SELECT coalesce(max(listing), 0) FROM linked WHERE start = ?", (visit.start,)
        ).fetchone()
        new = max(last, linked)
        (waiting,) = self._database.execute(
            "SELECT min(id) FROM visits WHERE start = ? AND kind = 'product' AND id > ? AND id < ? AND outcome IS NULL",
            (visit.start, new, visit.number),
        ).fetchone()
        # What a page leads to is numbered between the page and the next one.
        (idle,) = self._database.execute(
            "SELECT count(*) FROM visits WHERE start = ? AND kind = 'listing' AND id > ? AND id < ?",
            (visit.start, new, waiting or visit.number),
        ).fetchone()
        if waiting:
            return max(int(idle) - 1, 0)
        return int(idle) + (not fresh and linked < visit.number)

    def _add(self, url: str, kind: Kind, start: int, listing: int = 0) -> bool:
        url = _text(url)
        try:
            canonical = canonicalize_url(url)
        except ValueError:  # such as an IPv6 address without its bracket; asking for it says so
            canonical = url
        added = self._database.execute(
            "INSERT OR IGNORE INTO visits (canonical, url, kind, start) VALUES (?, ?, ?, ?)",
            (canonical, url, kind, start),
        )
        if listing and not added.rowcount:
            self._database.execute(
                "INSERT OR IGNORE INTO linked SELECT ?, canonical, ? FROM visits WHERE canonical = ? AND start <> ?",
                (start, listing, canonical, start),
            )
        return added.rowcount > 0


def _text(value: str) -> str:
    """Return text that UTF-8 can hold; a page may give lone surrogates."""
    return value.encode("utf-8", "replace").decode()
