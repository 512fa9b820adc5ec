"""One store's crawl, in a process of its own: Twisted's reactor runs once in a process.

    python -m atlas_ray.crawl.process --stores stores.yaml --store NAME --job FOLDER --output FOLDER

The same command goes on after a stop, SIGKILL included. It exits with 0 when the report is written,
with 2 and one line for a mistake in what it was given, and with 1 for anything else.
"""

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from scrapy import signals
from scrapy.crawler import CrawlerProcess

from atlas_ray.crawl.browser import BrowserGate, CheckedProxy, browser_settings, find_chromium
from atlas_ray.crawl.frontier import Frontier
from atlas_ray.crawl.settings import CrawlConfig, scrapy_settings
from atlas_ray.crawl.spider import StoreSpider
from atlas_ray.crawl.store import Store, read_stores
from atlas_ray.errors import ConfigError, UserError, reason_of
from atlas_ray.io import storage
from atlas_ray.io.lease import hold
from atlas_ray.schemas import quarantine_row
from atlas_ray.settings import COMMAND_LINE, FlagParser, add_flags, build_settings, flags_given, pin_settings

ROWS_PER_PART = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a crawl from the command line and return the exit code."""
    parser = FlagParser(prog="python -m atlas_ray.crawl.process", description=__doc__)
    add_flags(parser, CrawlConfig)
    options = parser.parse_args(arguments)
    try:
        crawl_store(build_settings(CrawlConfig, flags_given(options, CrawlConfig), COMMAND_LINE))
    except Exception as error:
        reason = reason_of(error)
        if reason is None:
            raise
        print(f"crawl: {reason}", file=sys.stderr)
        return 2 if isinstance(reason, UserError) else 1
    return 0


def crawl_store(config: CrawlConfig) -> dict[str, Any]:
    """Crawl one store to its end, or until SIGTERM, and return the report; once in a process.

    Raises:
        UserError: for a store that is not there, one that needs a browser where none is, and a job
            folder of other settings or at work.
    """
    store = _store(config)
    browser = find_chromium() if store.render else None
    with hold(config.job, "crawl"):
        starts = [start.url for start in store.start_urls]
        pin_settings(config.job, "store.json", {"store": store.name, "start_urls": starts})
        frontier = Frontier(os.path.join(config.job, "frontier.sqlite3"), max_idle_pages=store.max_idle_pages)
        frontier.add_starts(starts)
        _run(store, config, frontier, browser)
        report = write_output(frontier, store, config.output)
        frontier.close()
    return report


def write_output(frontier: Frontier, store: Store, output: str) -> dict[str, Any]:
    """Write products, failures and at last the report to the output folder; return the report.

    Its `outcomes` count every URL that was asked for, so that with `waiting` they make up `urls`.
    """
    origins: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()

    def products() -> Iterator[dict[str, Any]]:
        for row in frontier.products():
            for name, origin in row["origins"].items():
                origins[name][origin] += 1
            yield row

    def failures() -> Iterator[dict[str, object]]:
        for url, code, message in frontier.failures():
            if code == "not_a_product":
                reasons[message] += 1
            yield quarantine_row("crawl", code, f"{url}: {message}")

    _write_parts(storage.join(output, "products"), products())
    _write_parts(storage.join(output, "quarantine"), failures())
    outcomes, waiting = frontier.outcomes(), frontier.waiting()
    report = {
        "store": store.name,
        "complete": waiting == 0,
        "urls": sum(outcomes.values()) + waiting,
        "waiting": waiting,
        "outcomes": outcomes,
        "products": outcomes.get("product", 0),
        "not_a_product": dict(reasons.most_common()),
        "origins": {name: dict(counts.most_common()) for name, counts in sorted(origins.items())},
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    storage.write_bytes(storage.join(output, "report.json"), text.encode())
    return report


def _store(config: CrawlConfig) -> Store:
    stores = {store.name: store for store in read_stores(config.stores)}
    if config.store not in stores:
        raise ConfigError(f"{config.stores} has no store {config.store!r}; it has {', '.join(stores)}")
    return stores[config.store]


def _run(store: Store, config: CrawlConfig, frontier: Frontier, browser: str | None) -> None:
    settings = scrapy_settings(store, config)
    proxy = None
    gate = BrowserGate(config.address_rule)
    if browser is not None:
        proxy = CheckedProxy(config.address_rule)
        more = browser_settings(browser, proxy.port, gate, store.concurrency, config.timeout_s)
        settings |= more | {"DOWNLOAD_HANDLERS": settings["DOWNLOAD_HANDLERS"] | more["DOWNLOAD_HANDLERS"]}
    process = CrawlerProcess(settings)
    crawler = gate.crawler = process.create_crawler(StoreSpider)
    if proxy is not None:
        crawler.signals.connect(proxy.start, signals.spider_opened, weak=False)
    process.crawl(crawler, store=store, frontier=frontier, max_pages=config.max_pages)
    process.start()
    if process.bootstrap_failed:
        raise RuntimeError("the crawl could not begin; the log above says why")
    if frontier.broken:
        raise frontier.broken


def _write_parts(folder: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines, in files of bounded size; one file at least."""
    rows = iter(rows)
    part = 0
    while (batch := list(islice(rows, ROWS_PER_PART))) or part == 0:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in batch)
        storage.write_bytes(storage.join(folder, f"part-{part:05d}.jsonl"), lines.encode())
        part += 1


if __name__ == "__main__":
    sys.exit(main())
