"""The settings of a crawl, and the Scrapy settings made from them."""

import re
from dataclasses import dataclass
from typing import Any

from atlas_ray.crawl.store import Store
from atlas_ray.errors import ConfigError
from atlas_ray.extraction.page import MAX_BYTES
from atlas_ray.io.addresses import AddressRule
from atlas_ray.settings import Settings, setting
from atlas_ray.version import __version__

MAX_URL_CHARACTERS = 2083
"""Longest URL that is requested, in characters."""


@dataclass(frozen=True, kw_only=True)
class CrawlLimits(Settings):
    """How politely each store is crawled, and what is refused."""

    max_pages: int = setting("stop a store after this many pages", 1_000_000, low=1, high=10**9)
    timeout_s: float = setting("seconds for one page, its redirects and retries not counted", 30.0, low=0.1, high=600)
    max_bytes: int = setting("bytes of the largest page", MAX_BYTES, low=1024, high=MAX_BYTES)
    retries: int = setting("retries of a page after a timeout or a 5xx", 3, low=0, high=20)
    backoff_s: float = setting("seconds before the first retry; doubled for each further one", 1.0, low=0.0, high=60)
    user_agent: str = setting(
        "User-Agent header sent to servers, and the name that robots.txt is searched for", "atlas_ray"
    )
    allow_private: str = setting("private addresses that may be requested: HOST:PORT", "", several=True)

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: naming the field and its value.
        """
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z_-]+", self.user_agent):
            raise ConfigError(f"user_agent is {self.user_agent!r}; robots.txt knows names of letters, - and _ only")
        _ = self.address_rule

    @property
    def address_rule(self) -> AddressRule:
        """Which addresses may be requested."""
        return AddressRule.parse(self.allow_private)


@dataclass(frozen=True, kw_only=True)
class CrawlConfig(CrawlLimits):
    """One store's crawl."""

    stores: str = setting("file of the stores, local or in S3")
    store: str = setting("name of the store to crawl")
    job: str = setting("local folder for the progress of the crawl, from which it resumes after a stop")
    output: str = setting("folder for products/, quarantine/ and report.json, local or in S3")


def scrapy_settings(store: Store, config: CrawlConfig) -> dict[str, Any]:
    """Return Scrapy's settings for one store."""
    crawl = "atlas_ray.crawl"
    return {
        "USER_AGENT": f"{config.user_agent}/{__version__}",
        "ROBOTSTXT_OBEY": True,
        "ROBOTSTXT_USER_AGENT": config.user_agent,
        # Speed: as many requests at once as the store allows, fewer when it answers slowly.
        "CONCURRENT_REQUESTS": 2 * store.concurrency + 2,  # waiting retries take a place, too
        "CONCURRENT_REQUESTS_PER_DOMAIN": store.concurrency,
        "DOWNLOAD_DELAY": store.delay_s,
        "DOWNLOAD_DELAY_JITTER": 0.0,  # half the time it would undercut the store's delay, or its robots.txt's
        "AUTOTHROTTLE_ENABLED": True,
        "AUTOTHROTTLE_START_DELAY": store.delay_s,
        "AUTOTHROTTLE_TARGET_CONCURRENCY": float(store.concurrency),
        # Limits against what is hostile or broken.
        "DOWNLOAD_TIMEOUT": config.timeout_s,
        "DOWNLOAD_MAXSIZE": config.max_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        "REDIRECT_MAX_TIMES": 10,
        "RETRY_TIMES": config.retries,
        "RETRY_GIVE_UP_LOG_LEVEL": "INFO",
        "ADDRESS_RULE": config.address_rule,
        "STORE": store,
        "TWISTED_DNS_RESOLVER": f"{crawl}.resolver.CheckedResolver",
        "DOWNLOAD_HANDLERS": dict.fromkeys(("data", "file", "ftp", "s3")),
        # A proxy resolves names itself, out of the address rule's reach.
        "HTTPPROXY_ENABLED": False,
        "DOWNLOADER_MIDDLEWARES": {
            f"{crawl}.middlewares.GateMiddleware": 10,
            f"{crawl}.middlewares.RobotsMiddleware": 100,
            f"{crawl}.middlewares.BackoffMiddleware": 550,
            "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
            "scrapy.downloadermiddlewares.retry.RetryMiddleware": None,
            "scrapy.downloadermiddlewares.offsite.OffsiteMiddleware": None,  # the gate says which URL, and why
        },
        # The frontier knows what was seen, and drops nothing without a trace, as these would.
        "DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter",
        "URLLENGTH_LIMIT": 0,
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        "LOG_LEVEL": "INFO",
        "BACKOFF_S": config.backoff_s,
    }
