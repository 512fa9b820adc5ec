"""The search for duplicates over a whole catalogue, in a stream."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from atlas_ray.duplicates.detect import (
    FILES,
    FINGERPRINTED,
    Combine,
    DuplicateConfig,
    DuplicateReport,
    Meet,
    Spread,
    find_duplicates,
    in_memory,
)
from atlas_ray.duplicates.detect import fingerprint_block as fingerprint
from atlas_ray.errors import AuditError
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.outcomes import split_outcomes
from atlas_ray.runtime.pictures import stream_pictures
from atlas_ray.runtime.settings import ReadConfig
from atlas_ray.runtime.shuffle import IMAGE, OUTCOME, QUARANTINED, by_key, by_product
from atlas_ray.runtime.tables import open_catalog
from atlas_ray.runtime.workers import plan_workers
from atlas_ray.schemas import QUARANTINE
from atlas_ray.settings import setting

FOLDERS = ("fingerprints", "quarantine")
BLOCK_ROWS = 256
SMALL_ROWS = 20_000
"""Pictures up to which this process searches alone: a shuffle would only start after it has ended."""
PARTITION_ROWS = 2**20
"""Rows that are brought together at once, most of a fingerprint and a key: 64 MiB."""
AUDITED = pa.schema([("kind", pa.int8()), ("product_id", pa.string()), ("image_id", pa.int64())])
TOTALS = ("input", "fingerprinted", "quarantined", "wrong")
COUNTED = pa.schema([(name, pa.int64()) for name in (*TOTALS, "first_wrong")])


@dataclass(frozen=True, kw_only=True)
class DuplicatesRunConfig(DuplicateConfig, ReadConfig):
    """Where to look for duplicates, and what counts as one."""

    catalog: str = setting("a catalogue: its products and images tables")
    output: str = setting("where duplicates.parquet, groups.parquet, placeholders.parquet and catalog/ go")
    rows_per_file: int = setting("pictures an output file: what a crash may cost", 4096, low=1, high=10_000_000)
    split: str | None = setting(
        "train/val/test shares of products without a split; those of the import by default", None
    )
    seed: int | None = setting("random seed of that split; that of the import by default", None, low=0, high=2**31)
    anew: bool = setting("draw the split of all products anew", False)


def detect_duplicates(config: DuplicatesRunConfig) -> tuple[DuplicateReport, RunReport]:
    """Find the pictures of a catalogue that several products have.

    Writes `duplicates.parquet`, `groups.parquet` and `placeholders.parquet` (see
    `atlas_ray.duplicates.detect`), `quarantine/` and `run.json`; after a crash the same call goes
    on. Of the pictures, only those that look like others are held in memory: about 1 KiB each.

    Returns:
        The tables, and the run's account.

    Raises:
        CatalogError: if the catalogue has no tables of the right columns.
        OutputError: if the output holds a run of another catalogue.
        AuditError: if inputs and outputs do not balance.
    """
    with Job("duplicates", config, streams=FOLDERS, makes=FILES, scratch=FOLDERS[:1]) as job:
        catalog = open_catalog(storage.absolute(config.catalog))
        job.pin({"catalog": catalog.uri, "input_rows": catalog.images.all_rows})
        limits = {name: getattr(config, name) for name in ("max_distance", "max_products")}
        if (done := job.finished(lambda run: limits.items() <= run["config"].items())) is not None:
            return DuplicateReport.read(job.output), done
        stages = functools.partial(_stages, config, catalog.images)
        split = functools.partial(split_outcomes, folder=FOLDERS[0], schema=FINGERPRINTED)
        job.stream("fingerprinting", catalog.images.rows, stages, split=split, rows_per_file=config.rows_per_file)
        counts = _audited(catalog.images, job.output)
        prints = open_table(storage.join(job.output, FOLDERS[0]), FINGERPRINTED, may_be_missing=True)
        report = find_duplicates(in_memory(prints.read()) if prints.rows <= SMALL_ROWS else on_ray(prints), config)
        report.write(job.output)
        counts |= {
            "duplicate_pictures": len(report.duplicates),
            "groups": len(set(report.groups["group"].to_pylist())),
            "products_in_groups": len(report.groups),
            "placeholders": len(report.placeholders),
        }
        return report, job.finish(job.account(catalog, counts))


def on_ray(prints: Table, partition_rows: int = PARTITION_ROWS) -> Meet:
    """Return how rows made of a table of `FINGERPRINTED` meet in a shuffle."""

    def meet(spread: Spread, schema: pa.Schema, times: int, combine: Combine) -> Iterable[pa.Table]:
        partitions = -(-prints.rows * times // partition_rows)
        made = by_key(((prints, 0),), FINGERPRINTED, partitions, combine, key="key", spread=spread, made=schema)
        blocks: Iterable[pa.Table] = made.iter_batches(batch_size=None, batch_format="pyarrow")
        return blocks

    return meet


def _audited(images: Table, output: str) -> dict[str, int]:
    """Count the pictures, each once, and hold them against the input.

    Raises:
        AuditError: if a picture of the catalogue has no outcome, or there is one of another picture.
    """
    prints, failed = (
        open_table(storage.join(output, folder), schema, columns=AUDITED.names[1:], may_be_missing=True)
        for folder, schema in ((FOLDERS[0], FINGERPRINTED), (FOLDERS[1], QUARANTINE))
    )
    tables = ((images, IMAGE), (prints, OUTCOME), (failed, QUARANTINED))
    total = sum(table.rows for table, _ in tables)
    blocks = by_product(tables, AUDITED, total, count_outcomes).blocks()
    rows = [row for block in blocks for row in block.to_pylist()]
    counts = {name: sum(row[name] for row in rows) for name in TOTALS}
    if counts.pop("wrong"):
        raise AuditError(
            f"{output}: {sum(row['wrong'] for row in rows)} pictures do not balance; the first: image_id "
            f"{next(row['first_wrong'] for row in rows if row['wrong'])}"
        )
    return counts | {"repeated_input_rows": images.rows - counts["input"]}


def count_outcomes(table: pa.Table) -> pa.Table:
    """Count all pictures of some products, each once, by what became of them; `wrong` are those that do not balance."""
    ids, kinds = table["image_id"].to_numpy(), table["kind"].to_numpy()
    wanted, printed, failed = (np.unique(ids[kinds == kind]) for kind in (IMAGE, OUTCOME, QUARANTINED))
    failed = np.setdiff1d(failed, printed)
    wrong = np.setxor1d(wanted, np.concatenate([printed, failed]))
    counts = dict(zip(TOTALS, map(len, (wanted, printed, failed, wrong)), strict=True))
    return pa.Table.from_pylist([counts | {"first_wrong": int(wrong[0]) if len(wrong) else None}], COUNTED)


def _stages(config: DuplicatesRunConfig, images: Table, progress: Any) -> ray.data.Dataset:
    plan = plan_workers(device="cpu", workers=0, threads=1)
    return stream_pictures(images, progress, plan, config, block_rows=BLOCK_ROWS).map_batches(
        functools.partial(_fingerprint, progress=progress), batch_size=None, batch_format="pyarrow"
    )


def _fingerprint(table: pa.Table, progress: Any) -> pa.Table:
    out = fingerprint(table)
    failed = len(out) - out["error_code"].null_count
    progress.add.remote({"fingerprinted": len(out) - failed, "quarantined": failed})
    return out
