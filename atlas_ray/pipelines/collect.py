"""Collection: shops crawled, their products imported, and the pictures fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog
from atlas_ray.crawl.run import CrawlReport, CrawlRunConfig, crawl
from atlas_ray.fetching.atlas_json import write_atlas_json
from atlas_ray.fetching.run import FetchConfig, fetch
from atlas_ray.io import storage
from atlas_ray.io.lease import hold
from atlas_ray.runs.run_record import RunReport, read_run
from atlas_ray.taxonomy import read_taxonomy
from atlas_ray.version import __version__

StageReport: TypeAlias = CrawlReport | ImportReport | RunReport


@dataclass(frozen=True)
class Collected:
    """What a collection ended with.

    Attributes:
        crawled: The report of the crawl.
        refused_fraction: The share of the crawled products that the import quarantined.
        fetched: The report of the fetch; None if no product was found, or pictures are not wanted.
        atlas_json: The Atlas JSON, if one was asked for.
    """

    crawled: CrawlReport
    refused_fraction: float = 0.0
    fetched: RunReport | None = None
    atlas_json: str | None = None


def collect(config: CrawlRunConfig, on_stage: Callable[[StageReport], None] = lambda _: None) -> Collected:
    """Crawl shops, make a catalogue of what they sell, and fetch its pictures.

    After another look at the shops the stages that follow do only what has changed.

    Args:
        config: The crawl; its output gets `crawl`, `urls` and `catalog`, and `atlas.json` if it is asked for.
        on_stage: Called with the report of each stage as it ends.
    """
    with hold(config.output, "crawl"):
        crawled = crawl(config)
        on_stage(crawled)
        if not crawled.run["counts"]["products"]:
            return Collected(crawled)
        output = storage.absolute(config.output)
        urls = storage.join(output, "urls")
        if not (crawled.already_done and storage.exists(storage.join(urls, "run.json"))):
            storage.delete_folder(urls)  # of an earlier state of the crawl, or of an import that was stopped
            taxonomy = read_taxonomy(config.taxonomy) if config.taxonomy else None
            source = storage.join(crawled.output, "rows")
            on_stage(import_catalog(ImportConfig(source=source, output=urls, format="jsonl", taxonomy=taxonomy)))
        imported = (read_run(urls) or {})["counts"]
        refused = sum(imported["quarantined"].values()) / max(imported["records"] - imported["blank"], 1)
        if not config.pictures:
            return Collected(crawled, refused, atlas_json=_write_atlas_json(config, None))
        fetching = FetchConfig(
            catalog=urls,
            output=storage.join(output, "catalog"),
            allow_private=config.allow_private,
            per_host_rate=config.per_host_rate,
            user_agent=f"{config.user_agent}/{__version__}",
            retry_failed=config.retry_failed,
        )
        fetched = fetch(fetching)
        on_stage(fetched)
        return Collected(crawled, refused, fetched, _write_atlas_json(config, fetched))


def _write_atlas_json(config: CrawlRunConfig, fetched: RunReport | None) -> str | None:
    """Write the Atlas JSON if one is asked for, and return where; one of pictures that have not changed stays."""
    if config.format != "atlas-json":
        return None
    output = storage.absolute(config.output)
    uri = storage.join(output, "atlas.json")
    if fetched is None or not fetched.already_done or not storage.exists(uri):
        write_atlas_json(storage.join(output, "urls"), uri, fetched.output if fetched else None)
    return uri
