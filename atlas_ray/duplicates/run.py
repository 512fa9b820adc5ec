"""The search for duplicates over a whole catalogue, in a stream."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from atlas_ray.duplicates.detect import FILES, FINGERPRINTED, DuplicateConfig, DuplicateReport, find_duplicates
from atlas_ray.duplicates.detect import fingerprint_block as fingerprint
from atlas_ray.errors import AuditError
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.outcomes import split_outcomes
from atlas_ray.runtime.pictures import stream_pictures
from atlas_ray.runtime.settings import ReadConfig
from atlas_ray.runtime.tables import open_catalog
from atlas_ray.runtime.workers import plan_workers
from atlas_ray.schemas import QUARANTINE
from atlas_ray.settings import setting

FOLDERS = ("fingerprints", "quarantine")
BLOCK_ROWS = 256


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
    on. The fingerprints of all pictures are held in memory at the end: 2 GiB for a million.

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
        pictures, counts = _audited(catalog.images, job.output)
        report = find_duplicates(pictures, config)
        report.write(job.output)
        counts |= {
            "duplicate_pictures": len(report.duplicates),
            "groups": len(set(report.groups["group"].to_pylist())),
            "products_in_groups": len(report.groups),
            "placeholders": len(report.placeholders),
        }
        return report, job.finish(job.account(catalog, counts))


def _audited(images: Table, output: str) -> tuple[pa.Table, dict[str, int]]:
    """Return `FINGERPRINTED`, each picture once, and counts that hold against the input.

    Raises:
        AuditError: if a picture of the catalogue has no outcome, or there is one of another picture.
    """
    pictures, failed = (
        open_table(storage.join(output, folder), schema, may_be_missing=True).read(columns)
        for folder, schema, columns in ((FOLDERS[0], FINGERPRINTED, None), (FOLDERS[1], QUARANTINE, ["image_id"]))
    )
    _, first = np.unique(pictures["image_id"].to_numpy(), return_index=True)  # a catalogue may repeat one
    pictures = pictures.take(pa.array(np.sort(first)))
    quarantined = np.setdiff1d(failed["image_id"].to_numpy(), pictures["image_id"].to_numpy())
    wanted = np.unique(images.read(["image_id"])["image_id"].to_numpy())
    wrong = np.setxor1d(wanted, np.concatenate([pictures["image_id"].to_numpy(), quarantined]))
    if len(wrong):
        raise AuditError(f"{output}: {len(wrong)} pictures do not balance; the first: image_id {wrong[0]}")
    counts = {"input": len(wanted), "fingerprinted": len(pictures), "quarantined": len(quarantined)}
    return pictures, counts | {"repeated_input_rows": images.rows - len(wanted)}


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
