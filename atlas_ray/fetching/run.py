"""Fetch: the pictures of a catalogue of http(s) URLs, downloaded into a catalogue of its own.

Workers append what became of each picture to a journal, `fetched/`; the tables are made from it at
the end. So a stopped run goes on with the pictures that the journal lacks, and `retry_failed` with
those that it has no stored copy of.
"""

import functools
import hashlib
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from atlas_ray.errors import AuditError, CatalogError, ConfigError
from atlas_ray.fetching.pictures import JOURNAL, OUTCOMES, PictureFetcher, write_outcomes
from atlas_ray.fetching.tables import JOINED, TABLES, write_products
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.io.addresses import AddressRule, is_web
from atlas_ray.io.downloads import USER_AGENT, Downloader
from atlas_ray.modalities.limits import PictureLimits, min_side_setting
from atlas_ray.runs.run_record import RUN, RunReport
from atlas_ray.runtime.done import DoneIds, load_done
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.plan import STAGES, Plan, Stage, make_plan, shuffle_s, spread
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import MAX_FILES, PlanConfig, file_rows
from atlas_ray.runtime.shuffle import IMAGE, OUTCOME, PRODUCT, by_product
from atlas_ray.runtime.source import read_table
from atlas_ray.runtime.tables import Catalog, copy_documents, open_catalog
from atlas_ray.runtime.workers import WorkerPlan
from atlas_ray.schemas import IMAGES
from atlas_ray.settings import Settings, setting

CALLS_PER_WORKER = 4
"""Concurrent calls of each worker, so that a slow picture in one does not hold up the others."""
PICTURES_PER_PARTITION = 50_000
"""The number of pictures that are joined with their outcomes in one partition."""
SAMPLE = 500
"""The number of pictures that a plan downloads, unless it is given."""
BYTES_PER_ROW, MIN_BLOCK_BYTES = 256, 64 * 1024
"""The approximate size of a row of images in memory, and the smallest size of a block that is read."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig(Settings):
    """The catalogue to fetch and the limits of requests, which hold for all workers together."""

    catalog: str = setting("a catalogue: its products and images tables")
    output: str = setting("folder of the downloaded pictures and their catalogue")
    workers: int = setting("number of processes that download; 0 for one on each machine", 0, low=0, high=10_000)
    concurrency: int = setting("number of concurrent downloads", 128, low=1, high=100_000)
    per_host_concurrency: int = setting("number of concurrent downloads from one host", 16, low=1, high=10_000)
    per_host_rate: float = setting(
        "largest number of requests per second to one host; 0 for no limit", 50.0, low=0, high=1e6
    )
    timeout_s: float = setting(
        "time limit of one request in seconds, from connecting to the last byte", 30.0, low=0.1, high=3_600
    )
    attempts: int = setting("number of requests for a picture before it is quarantined", 3, low=1, high=100)
    max_bytes: int = setting("largest accepted picture in bytes, decompressed", 32 * 1024 * 1024, low=1, high=2**31)
    min_side_px: int = min_side_setting()
    allow_private: str = setting("private addresses that may be requested: HOST:PORT", "", several=True)
    ignore_robots: str = setting(
        "hosts whose robots.txt is ignored, such as your own: HOST or HOST:PORT", "", several=True
    )
    user_agent: str = setting("User-Agent header sent to servers", USER_AGENT)
    retry_failed: bool = setting("request the pictures in quarantine again", False)
    rows_per_file: int = setting(
        f"least number of pictures in a journal file, the most that a crash can lose; more where there would be over "
        f"{MAX_FILES:,} files",
        1024,
        low=1,
        high=1_000_000,
    )
    max_quarantine_fraction: float = setting(
        "share of quarantined pictures above which the command exits with 3", 0.05, low=0, high=1
    )

    def __post_init__(self) -> None:
        """Refuse values out of range, and more workers than can share what a host may be asked."""
        super().__post_init__()
        least = min(self.concurrency, self.per_host_concurrency)
        if self.workers > least:
            raise ConfigError(
                f"workers is {self.workers}; expected at most {least}, for they share the requests at a time: "
                f"concurrency {self.concurrency}, per_host_concurrency {self.per_host_concurrency}"
            )
        self.rule()

    def rule(self) -> AddressRule:
        """Return which addresses may be asked."""
        return AddressRule.parse(self.allow_private)


def fetch(config: FetchConfig) -> RunReport:
    """Download the pictures of a catalogue and write a catalogue that holds the stored ones.

    The same call goes on after a stop. After the catalogue has changed (imported anew, say, or grown) it asks for
    the pictures that it has not asked for, and writes the tables anew.

    Output: `pictures/ab/abcdef....jpg` by hash of content, `products/`, `images/`, `quarantine/`
    and `taxonomy.json` (see `atlas_ray.schemas`), the journal `fetched/`, and `run.json` when all
    is done. A picture's `image_id` is that of its stored URI; in quarantine it is the source's.

    Raises:
        CatalogError: if the catalogue has no tables of the right columns.
        OutputError: if the output holds something else, or a fetch of another catalogue.
        StorageError: if a picture cannot be written.
        AuditError: if pictures and outcomes do not balance.
    """
    with _job(config) as job:
        uri = storage.absolute(config.catalog)
        catalog = open_catalog(uri, needed=("image_uris",))
        job.pin({"catalog": uri})  # whichever version is the current one: what is new in it is fetched
        source_id = _source_id(catalog)

        def is_current(run: dict[str, Any]) -> bool:
            again = config.retry_failed and run["counts"]["quarantined"]
            return run.get("source_id") == source_id and not again

        if (report := job.finished(is_current)) is not None:
            return report
        connect()
        total, done = catalog.images.rows, _journal_ids(job.output, stored_only=config.retry_failed)
        with ProgressDisplay("fetching", "pictures", total=total, done=min(done.count, total)) as display:
            _stream(config, catalog.images, job.output, done, display)
        streamed = time.time()
        counts = _write_tables(catalog, job.output)
        job.resumed_from = done.count
        job.seconds |= {"stream": streamed - job.began, "tables": time.time() - streamed}
        return job.finish(job.account(catalog, counts, stage="fetch") | {"source_id": source_id})


def plan(config: FetchConfig, how: PlanConfig) -> Plan:
    """Download a sample of the pictures into a folder that is deleted, and forecast the run.

    It is downloaded from here, by one process with its share of the limits.

    Raises:
        UserError: as `fetch` does.
    """
    began = time.time()
    job = _job(config)
    uri = storage.absolute(config.catalog)
    catalog = open_catalog(uri, needed=("image_uris",))
    job.check({"catalog": uri})
    left = max(catalog.images.rows - _journal_ids(job.output, stored_only=config.retry_failed).count, 0)
    images = spread(catalog.images, IMAGES.names, how.plan_pictures or SAMPLE)
    if not len(images):
        raise CatalogError(f"{uri}: no picture to try")
    connect()
    workers = _workers(config)
    started = time.time()
    limits = PictureLimits(min_side_px=config.min_side_px)
    with (
        tempfile.TemporaryDirectory(prefix="atlas-ray-plan-") as scratch,
        Downloader(**_limits(config, workers)) as downloader,
    ):
        outcomes = PictureFetcher(scratch, downloader, limits).fetch(images)
    took = max(time.time() - started, 1e-3)
    rate = workers * len(images) / took
    hosts = Counter(urlsplit(address).netloc for address in images["image_uri"].to_pylist() if is_web(address))
    if hosts and config.per_host_rate:
        rate = min(rate, config.per_host_rate * len(images) / hosts.most_common(1)[0][1])
    codes = Counter(outcomes["error_code"].drop_null().to_pylist())
    size = pc.sum(outcomes["bytes"]).as_py() or 0
    stored = len(outcomes) - codes.total()
    return make_plan(
        command="fetch",
        pictures=left,
        tried=len(images),
        stages=[Stage(STAGES["fetch"]["download"], rate / workers, workers)],
        pictures_per_s=rate,
        workers=WorkerPlan(workers=workers, threads=0, fetchers=workers, gpus=0, decodes_apart=False, cpus=0),
        seconds={
            "start": started - began,
            "stream": left / rate,
            "tables": shuffle_s(catalog.products.rows + 2 * catalog.images.rows),
        },
        files={
            "pictures": round(left * stored / len(images)),
            JOURNAL: -(-left // file_rows(config.rows_per_file, catalog.images.rows)),
        },
        bytes={"pictures": round(left * size / len(images))},
        refused={code: count / len(images) for code, count in codes.most_common()},
        config=how,
    )


def _job(config: FetchConfig) -> Job:
    return Job("fetch", config, makes=(*TABLES, JOURNAL, "pictures", "taxonomy.json"))


def _source_id(catalog: Catalog) -> str:
    """Return a hash that changes with a catalogue: of the account of the run that made it, and of its size."""
    uri = storage.join(catalog.uri, RUN)
    account = storage.read_bytes(uri) if storage.exists(uri) else b""
    return hashlib.sha256(account + str(catalog.images.all_rows).encode()).hexdigest()


def _journal_ids(output: str, *, stored_only: bool) -> DoneIds:
    """Return the pictures that need not be asked for."""
    journal = open_table(storage.join(output, JOURNAL), OUTCOMES, may_be_missing=True)
    return load_done([file.uri for file in journal.files], journal.rows, failed=not stored_only)


def _workers(config: FetchConfig) -> int:
    nodes = sum(node["Alive"] for node in ray.nodes())
    return int(config.workers or min(nodes, config.concurrency, config.per_host_concurrency))


def _limits(config: FetchConfig, workers: int) -> dict[str, Any]:
    """Return the arguments of a worker's `Downloader`.

    Each worker gets its share of every limit, so that together they keep it whichever of them a host's pictures come
    to. Sending a host's pictures to one worker would need a shuffle first, and the one host that most catalogues have
    would keep one worker busy.
    """
    return {
        "rule": config.rule(),
        "concurrency": config.concurrency // workers,
        "per_host_concurrency": config.per_host_concurrency // workers,
        "per_host_rate": config.per_host_rate / workers,
        "timeout_s": config.timeout_s,
        "attempts": config.attempts,
        "max_bytes": config.max_bytes,
        "user_agent": config.user_agent,
        "obey_robots": True,
        "ignore_robots": frozenset(place.strip() for place in config.ignore_robots.split(",") if place.strip()),
    }


def _stream(config: FetchConfig, images: Table, output: str, done: DoneIds, display: ProgressDisplay) -> None:
    """Read the images table, download and store what is not done, and write the journal."""
    workers = _workers(config)
    rows_per_file = file_rows(config.rows_per_file, images.rows)
    context = DataContext.get_current().copy()
    # One large file among many small ones is cut by this; `blocks` below counts for all files alike.
    context.target_max_block_size = max(MIN_BLOCK_BYTES, BYTES_PER_ROW * rows_per_file)
    context.execution_no_progress_timeout_s = -1  # a low rate makes blocks that take hours
    with DataContext.current(context):
        # The reading tasks themselves cut blocks of about the right size: `repartition` would be a stage more,
        # with processes of its own.
        stream = read_table(images, IMAGES.names, blocks=-(-images.rows // rows_per_file) or 1)
        if done.count:
            stream = stream.map_batches(done.left, batch_size=None, batch_format="pyarrow")
        stream = stream.map_batches(
            _Fetch,
            fn_constructor_args=(output, PictureLimits(min_side_px=config.min_side_px)),
            fn_constructor_kwargs=_limits(config, workers),
            batch_size=rows_per_file,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=workers,
                max_tasks_in_flight_per_actor=2 * CALLS_PER_WORKER,
                max_concurrent_calls_per_actor=CALLS_PER_WORKER,
                enable_true_multi_threading=True,
            ),
            num_cpus=0,  # they wait, mostly; a small cluster's CPUs are left to the reading tasks
        )
        done_blocks: Any = stream.iter_batches(batch_size=None, batch_format="pyarrow")
        for block in done_blocks:
            display.add({"pictures": pc.sum(block["pictures"]).as_py()})


class _Fetch:
    """The process that downloads: a block of pictures in, a file of the journal written."""

    def __init__(self, output: str, pictures: PictureLimits, **limits: Any) -> None:
        self._output = output
        self._fetcher = PictureFetcher(output, Downloader(**limits), pictures)

    def __call__(self, images: pa.Table) -> pa.Table:
        outcomes = self._fetcher.fetch(images)
        write_outcomes(self._output, outcomes)
        return pa.table({"pictures": [len(outcomes)]})


def _write_tables(catalog: Catalog, output: str) -> Counter[str]:
    """Make the tables from the journal and the source, and return the counts, checked."""
    for name in TABLES:
        storage.delete_folder(storage.join(output, name))
    total = catalog.images.rows
    copy_documents(catalog.uri, output)
    journal = open_table(storage.join(output, JOURNAL), OUTCOMES, may_be_missing=True)
    tables = ((catalog.products, PRODUCT), (catalog.images, IMAGE), (journal, OUTCOME))
    write = functools.partial(write_products, output=output)
    counts = Counter[str]()
    for block in by_product(tables, JOINED, total, write, partition_rows=PICTURES_PER_PARTITION).blocks():
        for row in block.to_pylist():
            counts[row["name"]] += row["count"]
    if counts["input"] != counts["stored"] + counts["quarantined"] or counts["input"] > total:
        raise AuditError(
            f"{output}: {counts['stored']} stored and {counts['quarantined']} quarantined of "
            f"{counts['input']} pictures in {total} rows of input"
        )
    counts["repeated_input_rows"] = total - counts["input"]
    return counts
