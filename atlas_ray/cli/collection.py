"""`crawl`, `fetch`, `filter` and `duplicates`: from shop pages to clean pictures."""

import argparse
import sys
from typing import TYPE_CHECKING

from atlas_ray.cli.command import EXIT_FAILED, EXIT_OK, quarantine_exit, run_exit

if TYPE_CHECKING:
    from atlas_ray.crawl.run import CrawlReport, CrawlRunConfig


def add_crawl(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `crawl`."""
    from atlas_ray.crawl.run import CrawlRunConfig
    from atlas_ray.settings import add_flags

    add_flags(parser, CrawlRunConfig)


def run_crawl(options: argparse.Namespace) -> int:
    """Crawl shops, make a catalogue of what they sell, and fetch its pictures."""
    from atlas_ray.crawl.run import CrawlRunConfig
    from atlas_ray.io.lease import hold
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    config = build_settings(CrawlRunConfig, given(options, CrawlRunConfig), COMMAND_LINE)
    with hold(config.output, "crawl"):
        return _crawl(config)


def _crawl(config: "CrawlRunConfig") -> int:
    from atlas_ray.crawl.run import crawl
    from atlas_ray.reports.collection import print_crawl

    report = crawl(config)
    if report.already_done:
        print(f"{report.folder} holds this crawl, finished; nothing to crawl")
    print_crawl(report.folder, report.run)
    if config.format == "atlas-json":
        print(f"as one file: {report.folder}/atlas.json")
    for why in report.failed.values():
        print(f"atlas-ray crawl: {why}; the same command goes on with it", file=sys.stderr)
    if not report.run["counts"]["products"]:
        why = f"{report.folder}/stores says why, a page each; --retry-failed asks again for what did not come"
        print(f"atlas-ray crawl: no product was found; {why}", file=sys.stderr)
        return EXIT_FAILED
    code = _make_catalog(config, report)
    return EXIT_FAILED if report.failed else code


def _make_catalog(config: "CrawlRunConfig", crawled: "CrawlReport") -> int:
    """Import the rows of a crawl, and fetch their pictures; after another look at the shops, what has changed."""
    from atlas_ray import __version__
    from atlas_ray.catalog.importer import ImportConfig, import_catalog
    from atlas_ray.fetching.run import FetchConfig, fetch
    from atlas_ray.io import storage
    from atlas_ray.reports.collection import print_fetch
    from atlas_ray.reports.terminal import print_import
    from atlas_ray.runs.run_record import read_run
    from atlas_ray.taxonomy import read_taxonomy

    output = storage.absolute(config.output)
    urls = storage.join(output, "urls")
    taxonomy = read_taxonomy(config.taxonomy) if config.taxonomy else None
    importing = ImportConfig(
        source=storage.join(crawled.folder, "rows"), output=urls, format="jsonl", taxonomy=taxonomy
    )
    if not (crawled.already_done and storage.exists(storage.join(urls, "run.json"))):
        storage.delete_folder(urls)  # of an earlier state of the crawl, or of an import that was stopped
        print_import(import_catalog(importing))
    imported = (read_run(urls) or {})["counts"]
    refused = sum(imported["quarantined"].values()) / max(imported["records"] - imported["blank"], 1)
    code = quarantine_exit("crawl", refused, importing.max_quarantine_fraction, what="products")
    if not config.pictures:
        return code
    fetching = FetchConfig(
        catalog=urls,
        output=storage.join(output, "catalog"),
        allow_private=config.allow_private,
        per_host_rate=config.per_host_rate,
        user_agent=f"{config.user_agent}/{__version__}",
        retry_failed=config.retry_failed,
    )
    report = fetch(fetching)
    print_fetch(report.output, report.run)
    return run_exit("crawl", report, fetching.max_quarantine_fraction) or code


def add_fetch(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `fetch`."""
    from atlas_ray.fetching.run import FetchConfig
    from atlas_ray.settings import add_flags

    add_flags(parser, FetchConfig)


def run_fetch(options: argparse.Namespace) -> int:
    """Download the pictures of a catalogue of URLs."""
    from atlas_ray.fetching.run import FetchConfig, fetch
    from atlas_ray.reports.collection import print_fetch
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    config = build_settings(FetchConfig, given(options, FetchConfig), COMMAND_LINE)
    report = fetch(config)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do")
    print_fetch(report.output, report.run)
    return run_exit("fetch", report, config.max_quarantine_fraction)


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `filter`."""
    from atlas_ray.settings import add_flags
    from atlas_ray.zoom.filter import FilterConfig

    add_flags(parser, FilterConfig)


def run_filter(options: argparse.Namespace) -> int:
    """Tell the zoomed pictures of a catalogue from the normal ones."""
    from atlas_ray.reports.collection import print_filter
    from atlas_ray.settings import COMMAND_LINE, build_settings, given
    from atlas_ray.zoom.filter import FilterConfig, filter_catalog

    config = build_settings(FilterConfig, given(options, FilterConfig), COMMAND_LINE)
    report = filter_catalog(config)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do")
    print_filter(report.output, report.run)
    return run_exit("filter", report, config.max_quarantine_fraction)


def add_duplicates(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `duplicates`."""
    from atlas_ray.duplicates.run import DuplicatesRunConfig
    from atlas_ray.settings import add_flags

    add_flags(parser, DuplicatesRunConfig)


def run_duplicates(options: argparse.Namespace) -> int:
    """Find the pictures that several products have, and keep those products on one side of the split."""
    from atlas_ray.catalog.split import SplitRule, resplit_catalog
    from atlas_ray.duplicates.run import DuplicatesRunConfig, detect_duplicates
    from atlas_ray.io import storage
    from atlas_ray.io.lease import hold
    from atlas_ray.reports.collection import print_duplicates
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    config = build_settings(DuplicatesRunConfig, given(options, DuplicatesRunConfig), COMMAND_LINE)
    source = storage.absolute(config.catalog)
    rule = SplitRule.of(source).changed(shares=config.split, seed=config.seed)
    output = storage.absolute(config.output)
    catalog = storage.join(output, "catalog")
    with hold(output, "duplicates"):
        report, run = detect_duplicates(config)
        straddling, changed = resplit_catalog(source, catalog, report.groups, rule, anew=config.anew)
    print_duplicates(output, run, straddling, changed)
    return EXIT_OK
