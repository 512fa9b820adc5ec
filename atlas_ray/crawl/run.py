"""A crawl of several stores: one process a store, started by Ray tasks, and what they found together."""

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import ray

from atlas_ray.crawl.frontier import RETRYABLE_CODES
from atlas_ray.crawl.mapping import BreadcrumbMapping
from atlas_ray.crawl.settings import CrawlLimits
from atlas_ray.crawl.store import read_stores
from atlas_ray.errors import ConfigError, OutputError
from atlas_ray.io import storage
from atlas_ray.io.stores import is_object
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.schemas import PATH_KEY_SEPARATOR, product_id_of
from atlas_ray.settings import setting
from atlas_ray.taxonomy import Taxonomy, format_path, read_taxonomy

FRONTIER = "frontier.sqlite3"
FORMATS = ("tables", "atlas-json")
NO_REPORT = {"outcomes": {}, "not_a_product": {}, "origins": {}, "waiting": 0, "products": 0}
"""Report of a store whose crawl has not written one."""
PR_SET_PDEATHSIG = 1
POLL_S = 1.0
"""Seconds between looks at the progress of a crawl's process."""
SAVE_EVERY_S = 60.0
"""Seconds between copies of the frontier to object storage."""
MAX_UNMAPPED = 200
"""Number of unmapped breadcrumbs that the report lists, the most frequent first."""


@dataclass(frozen=True, kw_only=True)
class CrawlRunConfig(CrawlLimits):
    """Which stores to crawl, and where what they sell goes."""

    stores: str = setting("the stores file: YAML, or an Atlas CSV of start URLs")
    output: str = setting("where crawl/, urls/ and catalog/ go")
    only: str | None = setting("names of stores to crawl, all by default", None, several=True)
    taxonomy: str | None = setting("where breadcrumbs must lead: a file, or the built-in atlas-52", None)
    mapping: str | None = setting("a CSV of store, breadcrumb_prefix, category_path", None)
    format: str = setting("tables alone, or one Atlas JSON file besides", "tables", choices=FORMATS)
    retry_failed: bool = setting("ask again for pages that did not come, and their pictures", False)
    pictures: bool = setting("fetch the pictures too", True)
    per_host_rate: float = setting("pictures a second of one host; 0: as many as it answers", 50.0, low=0, high=1e6)
    max_quarantine_fraction: float = setting(
        "exit with 3 if a larger share of the products, or of their pictures, is quarantined", 0.05, low=0, high=1
    )

    def __post_init__(self) -> None:
        """Refuse a mapping to nowhere.

        Raises:
            ConfigError: naming the field.
        """
        super().__post_init__()
        if self.mapping and not self.taxonomy:
            raise ConfigError(f"mapping is {self.mapping!r}, but no taxonomy says where it may lead")


@dataclass(frozen=True)
class StoresFile:
    """The stores file, as it travels to the machines that crawl."""

    name: str
    content: bytes


class CrawlReport(RunReport):
    """What a crawl did; its output holds rows/, stores/ and run.json."""

    @property
    def failed(self) -> dict[str, str]:
        """The stores whose crawl ended with an error, each with why."""
        return {name: store["failed"] for name, store in self.run["stores"].items() if store["failed"]}


def crawl(config: CrawlRunConfig) -> CrawlReport:
    """Crawl stores; the same call goes on after a stop, and labels anew after a change of the mapping.

    Output, below `crawl/`: `rows/STORE.jsonl`, products as `atlas-ray import` reads them; `stores/STORE/`
    with what the pages said, the quarantine and a report a store; `run.json` with the counts of pages,
    products, fields by origin, errors by code, and the breadcrumbs that lead nowhere in the taxonomy. A
    store whose crawl ends with an error leaves the others alone; the next call goes on with it.

    Raises:
        UserError: for a stores file, taxonomy or mapping that cannot be used, an output of other
            stores, and if no store could be crawled.
    """
    with Job("crawl", config, below="crawl", makes=("rows", "stores")) as job:
        return _crawl(config, job)


def _crawl(config: CrawlRunConfig, job: Job) -> CrawlReport:
    output, folder = storage.absolute(config.output), job.output
    names = _names(config)
    taxonomy = read_taxonomy(config.taxonomy) if config.taxonomy else None
    mapping = None
    if taxonomy is not None:
        mapping = BreadcrumbMapping.read(config.mapping, taxonomy) if config.mapping else BreadcrumbMapping(taxonomy)
    # What lies on this machine's disk, other machines cannot read.
    stores = StoresFile(config.stores.rpartition("/")[2], storage.read_bytes(config.stores))
    if storage.exists(storage.join(output, "model.json")) or storage.files(storage.join(output, "products")):
        raise OutputError(f"{output} holds a model or a catalogue; crawl into a folder of its own")
    job.pin({"stores": config.stores, "only": config.only})
    labels = _labels_id(config, taxonomy)
    due = [name for name in names if _is_due(storage.join(folder, "stores", name), config)]
    if (done := job.finished(lambda run: not due and run.get("labels_id") == labels)) is not None:
        return CrawlReport(folder, done.run, already_done=True)
    connect()
    with ProgressDisplay("crawling", "pages") as display:
        task = ray.remote(num_cpus=0 if len(names) == 1 else 1, max_retries=3)(_crawl_store)
        outcomes = ray.get(
            [task.remote(config, stores, name, mapping, folder, display.actor, name in due) for name in names]
        )
    reports = dict(zip(names, outcomes, strict=True))
    if all(report["failed"] for report in outcomes):
        raise ConfigError(outcomes[0]["failed"])
    return CrawlReport(folder, job.finish({"labels_id": labels, **_together(reports)}).run)


def _labels_id(config: CrawlRunConfig, taxonomy: Taxonomy | None) -> str:
    """Return a hash of what makes rows of products: the taxonomy and the mapping."""
    mapping = storage.read_bytes(config.mapping) if config.mapping else b""
    parts = (taxonomy.to_json().encode() if taxonomy else b"", mapping)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _is_due(output: str, config: CrawlRunConfig) -> bool:
    """Return whether a store's crawl has not come to its end, or is to ask again for what failed."""
    uri = storage.join(output, "report.json")
    if not storage.exists(uri):
        return True
    report = json.loads(storage.read_bytes(uri))
    passing = config.retry_failed and any(code in RETRYABLE_CODES for code in report["outcomes"])
    return passing or _goes_on(report, config)


def _goes_on(report: Mapping[str, Any], config: CrawlRunConfig) -> bool:
    """Return whether a store's crawl, as it is reported, has pages that it may still ask for."""
    return bool(report["waiting"] > 0 and sum(report["outcomes"].values()) < config.max_pages)


def _names(config: CrawlRunConfig) -> list[str]:
    known = [store.name for store in read_stores(config.stores)]
    chosen = [name.strip() for name in config.only.split(",")] if config.only else known
    if unknown := [name for name in chosen if name not in known]:
        raise ConfigError(f"{config.stores} has no store {unknown[0]!r}; it has {', '.join(known)}")
    return chosen


def _crawl_store(
    config: CrawlRunConfig,
    stores: StoresFile,
    name: str,
    mapping: BreadcrumbMapping | None,
    folder: str,
    progress: Any,
    due: bool,
) -> dict[str, Any]:
    """Crawl one store in a process of its own, if that is due, and write its rows; return its report."""
    output = storage.join(folder, "stores", name)
    failed = _crawl_pages(config, stores, name, folder, output, progress) if due else None
    uri = storage.join(output, "report.json")
    report: dict[str, Any] = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else dict(NO_REPORT)
    if due and not failed and _goes_on(report, config):
        failed = f"the crawl of {name!r} ended with {report['waiting']} pages not asked for"
    unmapped: Counter[tuple[str, ...]] = Counter()
    rows = product_rows(output, mapping, unmapped)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    storage.write_lines(storage.join(folder, "rows", f"{name}.jsonl"), lines)
    report["unmapped"] = {format_path(path): count for path, count in unmapped.most_common(MAX_UNMAPPED)}
    report["labelled"] = report["products"] - unmapped.total() if mapping else 0
    report["failed"] = failed
    return report


def _crawl_pages(
    config: CrawlRunConfig, stores: StoresFile, name: str, folder: str, output: str, progress: Any
) -> str | None:
    """Run a store's crawl and return None, or why it ended with an error."""
    with contextlib.ExitStack() as stack:
        if is_object(folder):
            # SQLite needs a disk. What another machine did of this crawl is taken from the copy.
            job = stack.enter_context(tempfile.TemporaryDirectory(prefix="atlas-ray-crawl-"))
            saved = storage.join(folder, "jobs", name, FRONTIER)
            if storage.exists(saved):
                storage.write_bytes(os.path.join(job, FRONTIER), storage.read_bytes(saved))
        else:
            job, saved = storage.join(folder, "jobs", name), None
        return _run_process(config, stores, name, job, saved, output, progress)


def _run_process(
    config: CrawlRunConfig, stores: StoresFile, name: str, job: str, saved: str | None, output: str, progress: Any
) -> str | None:
    os.makedirs(job, exist_ok=True)
    stores_path = os.path.join(job, stores.name)
    storage.write_bytes(stores_path, stores.content)
    flags = {field.name: getattr(config, field.name) for field in fields(CrawlLimits)}
    flags |= {"stores": stores_path, "store": name, "job": job, "output": output}
    command = [sys.executable, "-m", "atlas_ray.crawl.process"]
    command += [f"--{key.replace('_', '-')}={value}" for key, value in flags.items()]
    log = os.path.join(job, "crawl.log")
    done, saved_at = 0, time.monotonic()
    with open(log, "ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, preexec_fn=_end_with_parent)
    try:
        while process.poll() is None:
            time.sleep(POLL_S)
            pages = _pages_done(os.path.join(job, FRONTIER))
            progress.add.remote({name: pages - done})
            done = pages
            if saved is not None and time.monotonic() - saved_at > SAVE_EVERY_S:
                _save(os.path.join(job, FRONTIER), saved)
                saved_at = time.monotonic()
    finally:
        if process.poll() is None:  # this task is cancelled: the process must not outlive it
            process.terminate()
            process.wait(60)
        if saved is not None:
            _save(os.path.join(job, FRONTIER), saved)
    if not process.returncode:
        return None
    with open(log, encoding="utf-8", errors="replace") as lines:
        last = [line.strip() for line in lines.readlines()[-20:] if line.strip()] or ["it said nothing"]
    return f"the crawl of {name!r} ended with {process.returncode}: {last[-1]}"


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent is gone, however it went: nothing else would stop the crawl then."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _pages_done(frontier: str) -> int:
    if not os.path.exists(frontier):
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"file:{frontier}?mode=ro", uri=True, timeout=1)) as database:
            row = database.execute("SELECT count(*) FROM visits WHERE outcome IS NOT NULL").fetchone()
    except sqlite3.OperationalError:  # just being made
        return 0
    return int(row[0])


def _save(frontier: str, uri: str) -> None:
    """Copy a database that is in use to storage."""
    if not os.path.exists(frontier):
        return
    with tempfile.TemporaryDirectory(prefix="atlas-ray-crawl-") as folder:
        copy = os.path.join(folder, FRONTIER)
        with (
            contextlib.closing(sqlite3.connect(frontier)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        with open(copy, "rb") as stream:
            storage.write_bytes(uri, stream.read())


def product_rows(
    output: str, mapping: BreadcrumbMapping | None, unmapped: Counter[tuple[str, ...]]
) -> Iterator[dict[str, Any]]:
    """Turn what a store's pages said into rows that `atlas-ray import` reads.

    Args:
        output: The store's folder.
        mapping: Where breadcrumbs lead; None leaves products without a category path.
        unmapped: Counts the breadcrumbs that lead nowhere.
    """
    for uri in storage.files(storage.join(output, "products"), suffix=".jsonl"):
        for line in storage.read_bytes(uri).splitlines():
            product = json.loads(line)
            path = None
            if mapping is not None:
                given = tuple(product["category_path"] or ())
                path = mapping.collapse(given) if given else mapping.map(product["store"], product["breadcrumb"])
                if path is None:
                    unmapped[tuple(given or product["breadcrumb"])] += 1
            yield {
                "product_id": product_id_of(product["store"], product["url"]),
                **{name: product[name] for name in ("store", "url", "title", "description", "price", "currency")},
                **{name: product.get(name) for name in ("brand", "sku", "availability")},
                "breadcrumb": product["breadcrumb"] or None,
                "image_uris": product["image_urls"],
                "category_path": list(path) if path else None,
                "crawled_at": product["crawled_at"],
            }


def _together(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Add the stores' reports up."""
    outcomes, origins, reasons = Counter[str](), Counter[str](), Counter[str]()
    unmapped = []
    for name, report in reports.items():
        outcomes.update(report["outcomes"])
        reasons.update(report["not_a_product"])
        for field, counts in report["origins"].items():
            origins.update({f"{field}{PATH_KEY_SEPARATOR}{origin}": count for origin, count in counts.items()})
        unmapped += [{"store": name, "breadcrumb": path, "products": n} for path, n in report["unmapped"].items()]
    by_field: dict[str, dict[str, int]] = {}
    for key, count in sorted(origins.items()):
        field, _, origin = key.partition(PATH_KEY_SEPARATOR)
        by_field.setdefault(field, {})[origin] = count
    good = ("listing", "product", "duplicate")
    return {
        "counts": {
            "stores": len(reports),
            "pages": outcomes.total(),
            "listings": outcomes["listing"],
            "products": outcomes["product"],
            "duplicates": outcomes["duplicate"],
            "labelled": sum(report["labelled"] for report in reports.values()),
            "quarantined": sum(count for code, count in outcomes.items() if code not in good),
            "waiting": sum(report["waiting"] for report in reports.values()),
        },
        "quarantined_by_code": {code: count for code, count in outcomes.items() if code not in good},
        "not_a_product": dict(reasons.most_common()),
        "fields_by_origin": by_field,
        "unmapped": sorted(unmapped, key=lambda row: -row["products"])[:MAX_UNMAPPED],
        "stores": {
            name: {"pages": sum(r["outcomes"].values()), "products": r["products"], "failed": r["failed"]}
            for name, r in reports.items()
        },
    }
