"""The search for duplicates over a whole catalogue, in a stream."""

import functools
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import DataContext

from atlas_ray.duplicates.detect import FINGERPRINTED, DuplicateConfig, DuplicateReport, find_duplicates
from atlas_ray.duplicates.detect import fingerprint_block as fingerprint
from atlas_ray.errors import AuditError, OutputError
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.runs.run_record import quarantine_codes, timings, write_run
from atlas_ray.runtime.checkpoint import checkpointed, recover, reopen, rows_done
from atlas_ray.runtime.outcomes import split_outcomes
from atlas_ray.runtime.pictures import fetched_pictures
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import outage_setting, retry_setting
from atlas_ray.runtime.sink import OutcomeSink
from atlas_ray.runtime.tables import open_catalog
from atlas_ray.runtime.workers import plan_workers
from atlas_ray.schemas import QUARANTINE
from atlas_ray.settings import pin_settings, setting

IDENTITY = "duplicates.json"
FOLDERS = ("fingerprints", "quarantine")
BLOCK_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class DuplicatesRunConfig(DuplicateConfig):
    """Where to look for duplicates, and what counts as one."""

    catalog: str = setting("a catalogue: its products and images tables")
    output: str = setting("where duplicates.parquet, groups.parquet, placeholders.parquet and catalog/ go")
    fetch_threads: int = setting("objects read at a time by each fetching process", 32, low=1, high=1_000)
    timeout_s: float = setting("seconds for one request to the object store", 30.0, low=0.1, high=3_600)
    outage_s: float = outage_setting()
    retry_failed: bool = retry_setting()
    rows_per_file: int = setting("pictures an output file: what a crash may cost", 4096, low=1, high=10_000_000)
    split: str | None = setting(
        "train/val/test shares of products without a split; those of the import by default", None
    )
    seed: int | None = setting("random seed of that split; that of the import by default", None, low=0, high=2**31)
    anew: bool = setting("draw the split of all products anew", False)


@holding("duplicates", "config.output")
def detect_duplicates(config: DuplicatesRunConfig) -> tuple[DuplicateReport, dict[str, Any]]:
    """Find the pictures of a catalogue that several products have.

    Writes `duplicates.parquet`, `groups.parquet` and `placeholders.parquet` (see
    `atlas_ray.duplicates.detect`), `quarantine/` and `run.json`; after a crash the same call goes
    on. The fingerprints of all pictures are held in memory at the end: 2 GiB for a million.

    Returns:
        The tables, and the run's account.

    Raises:
        CatalogError: where the catalogue has no tables of the right columns.
        OutputError: where the output holds a run of another catalogue.
        AuditError: where inputs and outputs do not balance.
    """
    began = time.time()
    output = storage.absolute(config.output)
    catalog = open_catalog(storage.absolute(config.catalog))
    total = catalog.images.rows
    if output == catalog.uri or storage.exists(storage.join(output, "model.json")):
        raise OutputError(f"{output} holds a model or a catalogue; name another folder with --output")
    pin_settings(output, IDENTITY, {"catalog": catalog.uri, "input_rows": catalog.images.all_rows})
    reopen(output, FOLDERS, retry_failed=config.retry_failed)
    connect()
    done = rows_done(output)
    with ProgressDisplay("fingerprinting", "pictures", total=total, done=done) as display:
        if done < total:
            _stream(config, catalog.images, output, display)
        spans = display.spans()
    recover(output, FOLDERS)
    pictures, counts = _audited(catalog.images, output)
    report = find_duplicates(pictures, config)
    report.write(output)
    unusable = catalog.write_unusable(output, "read")
    codes = quarantine_codes(output)
    fields = {
        "config": asdict(config),
        "counts": {
            "input": counts["fingerprinted"] + counts["quarantined"] + unusable,
            "fingerprinted": counts["fingerprinted"],
            "quarantined": counts["quarantined"] + unusable,
            "repeated_input_rows": counts["repeated"],
            "duplicate_pictures": len(report.duplicates),
            "groups": len(set(report.groups["group"].to_pylist())),
            "products_in_groups": len(report.groups),
            "placeholders": len(report.placeholders),
        },
        "unreadable_values": catalog.account(),
        "quarantined_by_code": codes,
        "seconds": {"total": time.time() - began, **timings(spans)},
    }
    return report, write_run(output, "duplicates", began, fields)


def _audited(images: Table, output: str) -> tuple[pa.Table, dict[str, int]]:
    """Return `FINGERPRINTED`, each picture once, and counts that hold against the input.

    Raises:
        AuditError: where a picture of the catalogue has no outcome, or there is one of another picture.
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
    repeated = images.rows - len(wanted)
    return pictures, {"fingerprinted": len(pictures), "quarantined": len(quarantined), "repeated": repeated}


def _stream(config: DuplicatesRunConfig, images: Table, output: str, display: ProgressDisplay) -> None:
    plan = plan_workers(device="cpu", workers=0, threads=1)
    for folder in FOLDERS:
        storage.make_folder(storage.join(output, folder))
    with DataContext.current(checkpointed(output)):
        stream = fetched_pictures(
            images,
            display.board,
            plan,
            block_rows=BLOCK_ROWS,
            fetch_threads=config.fetch_threads,
            timeout_s=config.timeout_s,
            outage_s=config.outage_s,
        )
        stream = stream.map_batches(
            functools.partial(_fingerprint, board=display.board), batch_size=None, batch_format="pyarrow"
        )
        split = functools.partial(split_outcomes, folder=FOLDERS[0], schema=FINGERPRINTED)
        stream.write_datasink(OutcomeSink(output, display.board, split=split, rows_per_file=config.rows_per_file))


def _fingerprint(table: pa.Table, board: Any) -> pa.Table:
    out = fingerprint(table)
    failed = len(out) - out["error_code"].null_count
    board.add.remote({"fingerprinted": len(out) - failed, "quarantined": failed})
    return out
