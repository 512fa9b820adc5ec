"""`crawl`: products and pictures collected from shop pages."""

import argparse
import sys
from typing import TYPE_CHECKING

from atlas_ray.cli.command import EXIT_FAILED, quarantine_exit, run_exit, settings_of
from atlas_ray.settings import add_flags

if TYPE_CHECKING:
    from atlas_ray.pipelines.collect import StageReport


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `crawl`."""
    from atlas_ray.crawl.run import CrawlRunConfig

    add_flags(parser, CrawlRunConfig)


def run(options: argparse.Namespace) -> int:
    """Crawl shops, make a catalogue of what they sell, and fetch its pictures."""
    from atlas_ray.catalog.importer import ImportReport
    from atlas_ray.crawl.run import CrawlReport, CrawlRunConfig
    from atlas_ray.pipelines.collect import collect
    from atlas_ray.reports.collection import print_crawl, print_fetch
    from atlas_ray.reports.terminal import print_import

    config = settings_of(options, CrawlRunConfig)

    def show(report: "StageReport") -> None:
        if isinstance(report, ImportReport):
            print_import(report)
        elif isinstance(report, CrawlReport):
            if report.already_done:
                print(f"{report.output} holds this crawl, finished; nothing to crawl")
            print_crawl(report.output, report.run)
            for why in report.failed.values():
                print(f"atlas-ray crawl: {why}; the same command goes on with it", file=sys.stderr)
        else:
            print_fetch(report.output, report.run)

    done = collect(config, show)
    if not done.crawled.run["counts"]["products"]:
        why = f"{done.crawled.output}/stores says why, a page each; --retry-failed asks again for what did not come"
        print(f"atlas-ray crawl: no product was found; {why}", file=sys.stderr)
        return EXIT_FAILED
    if done.atlas_json:
        print(f"as one file: {done.atlas_json}")
    code = quarantine_exit("crawl", done.refused_fraction, config.max_quarantine_fraction, what="products")
    if done.fetched is not None:
        code = run_exit("crawl", done.fetched, config.max_quarantine_fraction) or code
    return EXIT_FAILED if done.crawled.failed else code
