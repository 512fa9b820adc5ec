"""The filter: a catalogue's zoomed pictures told from its normal ones, in a stream."""

import functools
import time
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from atlas_ray.artifacts import ZoomArtifact, load_zoom_artifact
from atlas_ray.errors import AuditError, ItemError, tell
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader
from atlas_ray.metrics.zoom import warn_of_recall
from atlas_ray.modalities.limits import PictureLimits, min_side_setting
from atlas_ray.prediction.engines import AUTO, ENGINE_CHOICES, ENGINE_HELP
from atlas_ray.prediction.feeding import FEEDING
from atlas_ray.prediction.settings import BATCH_SIZE_HELP
from atlas_ray.reports.contact_sheet import Cell, Section, write_contact_sheet
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.outcomes import split_outcomes
from atlas_ray.runtime.pictures import ask_model, stream_pictures
from atlas_ray.runtime.plan import Plan, Trial, forecast, sample_pictures, sample_size
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import PlanConfig, StreamConfig
from atlas_ray.runtime.settled import settle
from atlas_ray.runtime.shuffle import IMAGE, OUTCOME, PRODUCT, QUARANTINED, by_product
from atlas_ray.runtime.sink import OutcomeSink
from atlas_ray.runtime.source import Pieces
from atlas_ray.runtime.tables import Catalog, copy_documents, open_catalog
from atlas_ray.runtime.workers import WorkerPlan, plan_workers
from atlas_ray.schemas import QUARANTINE
from atlas_ray.settings import setting
from atlas_ray.zoom.choose import (
    CHOSEN,
    COUNTED,
    JOINED,
    JUDGED,
    KEPT,
    PLACES,
    REJECTED,
    ZOOMED,
    count_chosen,
    split_chosen,
)
from atlas_ray.zoom.choose import choose as choose_pictures
from atlas_ray.zoom.stage import JudgeZoom

FOLDERS = ("zoom", "quarantine")
"""What the stream writes in."""
SHEET_PICTURES = 48


@dataclass(frozen=True, kw_only=True)
class FilterConfig(StreamConfig):
    """What to filter, with what, and how."""

    catalog: str = setting("a catalogue: its products and images tables")
    model: str = setting("a zoom filter, from `atlas-ray train zoom`")
    output: str = setting("where kept/ (a catalogue), rejected/, quarantine/, the contact sheet and run.json go")
    threshold: float | None = setting(
        "pictures of at least this probability are zoomed; the filter's own, from its target precision, by default",
        None,
        low=0,
        high=1,
    )
    min_side_px: int = min_side_setting()
    batch_size: int | None = setting(BATCH_SIZE_HELP.format(cpu=FEEDING["cpu"].zoom_batch_size), None, low=1, high=8192)
    device: str = setting("cpu, cuda, cuda:N or auto", "auto")
    precision: str = setting(
        "float32, bfloat16, or auto: bfloat16 if the device computes in it",
        "auto",
        choices=("auto", "float32", "bfloat16"),
    )
    engine: str = setting(ENGINE_HELP, AUTO, choices=ENGINE_CHOICES)


def filter_catalog(config: FilterConfig) -> RunReport:
    """Tell the zoomed pictures of a catalogue from the normal ones.

    Output: `kept/`, a catalogue without the rejected pictures (every product is in it), `rejected/`,
    both with `zoomed_probability`; `quarantine/`; a contact sheet of the surest and the least sure
    rejected pictures; `run.json` when all is done. After a crash the same call goes on.

    Raises:
        CatalogError: if the catalogue has no tables of the right columns.
        ArtifactError: if the model is no zoom filter.
        OutputError: if the output holds a run of another model, threshold or catalogue.
        AuditError: if inputs and outputs do not balance.
    """
    with _job(config) as job:
        config, artifact, threshold, catalog, identity = _open(config, job)
        job.pin(identity)
        if (report := job.finished()) is not None:
            return report
        if config.threshold is None and (warning := warn_of_recall(artifact.metrics)) is not None:
            tell(warning)
        stages = functools.partial(_stages, config, catalog.images)
        split = functools.partial(split_outcomes, folder="zoom", schema=ZOOMED)
        job.stream("filtering", catalog.images.rows, stages, split=split, rows_per_file=config.rows_per_file)
        counts = _choose(catalog, job.output, threshold)
        copy_documents(catalog.uri, storage.join(job.output, "kept"))
        draw_sheet(job.output, threshold)
        return job.finish(job.account(catalog, counts))


def plan(config: FilterConfig, how: PlanConfig) -> Plan:
    """Try a sample of the pictures, and forecast the run; nothing is written.

    Raises:
        UserError: as `filter_catalog` does.
    """
    began = time.time()
    job = _job(config)
    config, _, _, catalog, identity = _open(config, job)
    job.check(identity)
    connect()
    workers = _workers(config)
    block_rows = _block_rows(config, workers, how.plan_pictures)
    sample = sample_pictures(catalog, sample_size(how.plan_pictures, workers, block_rows), block_rows)
    trial = Trial(
        command="filter",
        sample=sample,
        done=job.done(sample.whole),
        stages=functools.partial(_stages, config, sample),
        split=functools.partial(split_outcomes, folder="zoom", schema=ZOOMED),
        workers=workers,
        rows_per_file=config.rows_per_file,
        shuffled=[catalog.products.rows + 2 * sample.whole],
        opened_s=time.time() - began,
    )
    return forecast(trial, how)


def _job(config: FilterConfig) -> Job:
    # `kept` and `rejected` hold what `zoom` does.
    return Job("filter", config, streams=FOLDERS, makes=("kept", "rejected"), scratch=("zoom",))


def _open(config: FilterConfig, job: Job) -> tuple[FilterConfig, ZoomArtifact, float, Catalog, dict[str, Any]]:
    """Open the filter and the catalogue, and name what the run is made of.

    The first value are the settings without `auto`, the third one is the threshold.
    """
    catalog = open_catalog(storage.absolute(config.catalog))
    artifact = load_zoom_artifact(config.model)
    threshold = artifact.model.config.threshold if config.threshold is None else config.threshold
    identity: dict[str, Any] = {
        "catalog": catalog.uri,
        "model_id": artifact.id,
        "threshold": threshold,
        "precision": config.precision,
        "engine": config.engine,
        "input_rows": catalog.images.all_rows,
    }
    forms = {"engine": artifact.engines}
    identity = settle(identity, functools.partial(_workers, config), config.device, forms, job.pinned())
    config = replace(config, precision=identity["precision"], engine=identity["engine"])
    return config, artifact, threshold, catalog, identity


def _block_rows(config: FilterConfig, workers: WorkerPlan, rows: int) -> int:
    return workers.block_rows(config.batch_size or workers.feeding.zoom_batch_size, rows)


def _workers(config: FilterConfig) -> WorkerPlan:
    return plan_workers(device=config.device, workers=config.workers, threads=0, per_gpu=config.workers_per_gpu)


def _stages(config: FilterConfig, images: Pieces, progress: Any) -> ray.data.Dataset:
    """Read, fetch, decode, judge."""
    workers = _workers(config)
    return ask_model(
        stream_pictures(images, progress, workers, config, block_rows=_block_rows(config, workers, images.rows)),
        workers,
        JudgeZoom,
        progress,
        model=storage.absolute(config.model),
        device=workers.device,
        precision=config.precision,
        batch_size=config.batch_size,
        engine=config.engine,
        threads=workers.threads,
        limits=PictureLimits(min_side_px=config.min_side_px),
    )


def _choose(catalog: Catalog, output: str, threshold: float) -> dict[str, int]:
    """Decide by product, write the tables, and return the run's counts, checked."""
    for folder, _ in PLACES.values():
        storage.delete_folder(storage.join(output, folder))
        storage.make_folder(storage.join(output, folder))
    total = catalog.images.rows
    tables = (
        (catalog.products, PRODUCT),
        (catalog.images, IMAGE),
        (_own(output, "zoom", ZOOMED), OUTCOME),
        (_own(output, "quarantine", QUARANTINE), QUARANTINED),
    )
    chosen = by_product(tables, JOINED, total, functools.partial(choose_pictures, threshold=threshold))
    sink = OutcomeSink(output, split=split_chosen, empty=CHOSEN.empty_table(), count=count_chosen)
    chosen.write(sink)
    counts = {name: sink.counts[name] for name in (*COUNTED, "kept_least_zoomed")}
    counts["input"] = counts["kept"] + counts["rejected"] + counts["quarantined"]
    counts["repeated_input_rows"] = total - counts["input"]
    if counts["repeated_input_rows"] < 0:
        raise AuditError(f"{output}: {counts['input']} pictures came out of {total} rows of input")
    return counts


def _own(output: str, folder: str, schema: pa.Schema) -> Table:
    return open_table(storage.join(output, folder), schema, may_be_missing=True)


def draw_sheet(output: str, threshold: float) -> None:
    """Draw the surest and the least sure rejected pictures of a run, and the surest of those saved."""
    rejected, kept = (_own(output, *PLACES[what]) for what in (REJECTED, KEPT))
    sections = [
        (f"Least sure: rejected, just over {threshold:.1%}", rejected, None, "ascending"),
        ("Surest: rejected", rejected, None, "descending"),
        ("Kept though zoomed: their products have no other picture", kept, pc.field("least_zoomed"), "descending"),
    ]
    with ObjectReader() as reader:
        drawn = []
        for title, table, chosen, order in sections:
            rows = _first(table, chosen, order)
            contents = reader.read_many([row["image_uri"] for row in rows])
            cells = [
                Cell(
                    b"" if isinstance(content, ItemError) else content,
                    f"{row['zoomed_probability']:.1%} {row['product_id']}",
                )
                for row, content in zip(rows, contents, strict=True)
            ]
            drawn.append(Section(f"{title} ({len(cells)})", cells))
    write_contact_sheet(output, drawn)


def _first(table: Table, chosen: Any, order: str) -> list[dict[str, Any]]:
    """Return the first rows by probability, holding no more than a few at a time."""
    best = JUDGED.empty_table()
    for batch in table.batches(where=chosen):
        both = pa.concat_tables([best, batch])
        best = both.sort_by([("zoomed_probability", order), ("image_id", "ascending")]).slice(0, SHEET_PICTURES)
    rows: list[dict[str, Any]] = best.to_pylist()
    return rows
