"""An embedding run: plan, stream, combine, index, account."""

import functools
import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
from ray.data import ActorPoolStrategy, DataContext

from atlas_ray.artifacts import Artifact, load_artifact
from atlas_ray.embedding.combine import combine
from atlas_ray.embedding.index import EMBEDDINGS, EXACT_ROWS, INDEX, ProductIndex
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.embedding.vectors import CARRIED, Embed
from atlas_ray.errors import AuditError, CatalogError, OutputError
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.modalities.products import PICTURE
from atlas_ray.runs.run_record import RunReport, picture_errors, quarantine_codes, timings, write_run
from atlas_ray.runtime.checkpoint import checkpointed, close, recover, reopen, rows_done
from atlas_ray.runtime.joined import forget_inputs, write_inputs
from atlas_ray.runtime.outcomes import KEYS, split_outcomes
from atlas_ray.runtime.pictures import fetched_pictures
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.shuffle import by_product
from atlas_ray.runtime.sink import OutcomeSink, write_table
from atlas_ray.runtime.tables import open_catalog, table_rows
from atlas_ray.runtime.workers import plan_workers
from atlas_ray.schemas import embeddings
from atlas_ray.settings import pin_settings

JOB = "embed"
IDENTITY = "embed.json"
VECTORS = "vectors"
"""A row a picture, until each product has its own."""
FOLDERS = (VECTORS, "quarantine")
"""What the stream writes in."""
PARTITION_NUMBERS = 2**24
"""Of the vectors that are brought together at once: 64 MiB."""


@holding("embed", "config.output")
def embed(config: EmbedConfig) -> RunReport:
    """Give every product of a catalogue a vector, and make an index of them.

    Output: `embeddings/` (Parquet; see `atlas_ray.schemas`), `index/` (LanceDB), `quarantine/`, and
    `run.json` when all is done. After a crash the same call goes on from what was written.

    Raises:
        CatalogError: where the catalogue has no tables of the right columns.
        ArtifactError: where the model cannot be used.
        OutputError: where the output holds a run of another model or catalogue.
        AuditError: where inputs and outputs do not balance.
    """
    began = time.time()
    output = storage.absolute(config.output)
    artifact = load_artifact(config.model)
    catalog = open_catalog(
        storage.absolute(config.catalog),
        products=(*artifact.texts, *CARRIED),
        needed=artifact.texts,
        may_be_empty=bool(artifact.texts),
    )
    identity = {
        "catalog": catalog.uri,
        "input_rows": catalog.images.all_rows,
        "model_id": artifact.id,
        "precision": config.predictor.precision,
        "engine": config.predictor.engine,
        "width": sum(artifact.feature_widths),
    }
    _hold_identity(output, identity)
    if (run := reopen(output, FOLDERS, retry_failed=config.retry_failed)) is not None:
        return RunReport(output, run, already_done=True)
    connect()
    inputs = write_inputs(catalog, output, (*artifact.texts, *CARRIED))
    total = inputs.rows
    if not total + catalog.unusable_rows:
        raise CatalogError(f"{catalog.uri}: no product and no picture to embed")
    done = rows_done(output)
    with ProgressDisplay("embedding", "pictures", total=total, done=done) as display:
        if done < total:
            _stream(config, inputs, output, artifact, display)
        spans = display.spans()
    recover(output, FOLDERS)
    counts = _combine(output, artifact, total)
    unusable = catalog.write_unusable(output, "read")
    for name in ("input", "quarantined"):
        counts[name] += unusable
    if counts["products"]:
        ProductIndex.build(output, sum(artifact.feature_widths))
    fields = {
        "config": config.to_dict(),
        "identity": identity,
        "counts": counts,
        "unreadable_values": catalog.account(),
        "index": "exact" if counts["products"] <= EXACT_ROWS else "ivf",
        "quarantined_by_code": quarantine_codes(output),
        "without_picture_by_code": picture_errors(output, VECTORS),
        "resumed_from": done,
        "seconds": {"total": time.time() - began, **timings(spans)},
    }
    run = write_run(output, JOB, began, fields)
    close(output, (VECTORS,), run)
    forget_inputs(output)
    return RunReport(output, run)


def _hold_identity(output: str, identity: dict[str, Any]) -> None:
    """Keep what the run is made of, or check that the output holds a run made of the same."""
    if output == identity["catalog"] or storage.exists(storage.join(output, "model.json")):
        raise OutputError(f"{output} holds a model or a catalogue; embed into a folder of its own")
    if not storage.exists(storage.join(output, IDENTITY)):
        for name in (*FOLDERS, EMBEDDINGS, INDEX):
            if storage.exists(storage.join(output, name)):
                raise OutputError(f"{output} holds {name} of another origin; embed into a new folder")
    pin_settings(output, IDENTITY, identity)


def _stream(config: EmbedConfig, inputs: Table, output: str, artifact: Artifact, display: ProgressDisplay) -> None:
    """Read, fetch, embed, write; what an earlier run committed is left out."""
    predictor = config.predictor
    plan = plan_workers(device=predictor.device, workers=config.workers, threads=predictor.threads)
    for folder in FOLDERS:
        storage.make_folder(storage.join(output, folder))
    with DataContext.current(checkpointed(output)):
        stream = fetched_pictures(
            inputs,
            display.board,
            plan,
            block_rows=predictor.batch_size * (8 if plan.gpus else 2),
            fetch_threads=config.fetch_threads,
            timeout_s=config.timeout_s,
            outage_s=config.outage_s,
            columns=(*KEYS, *artifact.texts, *CARRIED),
            read=PICTURE in artifact.reads,
        ).map_batches(
            Embed,
            fn_constructor_args=(
                display.board, storage.absolute(config.model), replace(predictor, threads=plan.threads)
            ),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(size=plan.workers),
            **plan.actor_options,
        )  # fmt: skip
        split = functools.partial(split_outcomes, folder=VECTORS, schema=_of_pictures(artifact))
        stream.write_datasink(OutcomeSink(output, display.board, split=split, rows_per_file=config.rows_per_file))


def _of_pictures(artifact: Artifact) -> pa.Schema:
    """Return the columns of `vectors`."""
    schema = embeddings(sum(artifact.feature_widths))
    names = ("product_id", *CARRIED, "vector", "picture_error")
    return pa.schema([("image_id", pa.int64()), *(schema.field(name) for name in names)])


def _combine(output: str, artifact: Artifact, total: int) -> dict[str, int]:
    """Write the embeddings and return the run's counts, checked."""
    counts = {
        "input": total,
        "embedded": table_rows(storage.join(output, VECTORS)),
        "quarantined": table_rows(storage.join(output, "quarantine")),
    }
    if counts["embedded"] + counts["quarantined"] != total:
        raise AuditError(f"{output}: {counts} do not balance: a picture is embedded or in quarantine, once")
    storage.delete_folder(storage.join(output, EMBEDDINGS))
    if counts["embedded"]:
        schema, widths = _of_pictures(artifact), artifact.feature_widths
        rows = max(1, PARTITION_NUMBERS // sum(widths))
        combined = by_product(
            ((open_table(storage.join(output, VECTORS), schema), 0),),
            schema,
            counts["embedded"],
            functools.partial(combine, widths=widths, model_id=artifact.id),
            partition_rows=rows,
        )
        write_table(combined, output, EMBEDDINGS)
    return counts | {"products": table_rows(storage.join(output, EMBEDDINGS))}
