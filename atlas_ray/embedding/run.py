"""An embedding run: plan, stream, combine, index, account."""

import functools
import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray.data

from atlas_ray.artifacts import Network
from atlas_ray.embedding.combine import combine
from atlas_ray.embedding.encoders import EncoderSource
from atlas_ray.embedding.index import INDEX
from atlas_ray.embedding.indexing import EXACT_ROWS, build_index
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.embedding.vectors import CARRIED, Embed
from atlas_ray.errors import AuditError, CatalogError, ConfigError
from atlas_ray.formats.tables import current, open_table
from atlas_ray.io import storage
from atlas_ray.modalities import PICTURE
from atlas_ray.models.backbones import BACKBONES, PACKAGE
from atlas_ray.runs.embedded import EMBEDDINGS, ENCODER, JOB
from atlas_ray.runs.run_record import RunReport, picture_errors
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.joined import write_inputs
from atlas_ray.runtime.outcomes import KEYS, split_outcomes
from atlas_ray.runtime.pictures import ask_model, stream_pictures
from atlas_ray.runtime.plan import Plan, Trial, forecast, sample_pictures, sample_size
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import PlanConfig
from atlas_ray.runtime.settled import settle
from atlas_ray.runtime.shuffle import by_product
from atlas_ray.runtime.sink import write_table
from atlas_ray.runtime.source import Pieces
from atlas_ray.runtime.tables import Catalog, open_catalog, table_rows
from atlas_ray.runtime.workers import WorkerPlan, plan_workers
from atlas_ray.schemas import embeddings

VECTORS = "vectors"
"""A row a picture, until each product has its own."""
FOLDERS = (VECTORS, "quarantine")
"""What the stream writes in."""
PARTITION_NUMBERS = 2**24
"""Of the vectors that are brought together at once: 64 MiB."""


def embed(config: EmbedConfig) -> RunReport:
    """Give every product of a catalogue a vector, and make an index of them.

    Output: `embeddings/` (Parquet; see `atlas_ray.schemas`), `index/` (LanceDB), `encoder/` (a copy of the model),
    `quarantine/`, and `run.json` when all is done. After a crash the same call goes on from what was written.

    Raises:
        CatalogError: if the catalogue has no tables of the right columns.
        ArtifactError, ConfigError: if the model cannot be used.
        OutputError: if the output holds a run of another model or catalogue.
        AuditError: if inputs and outputs do not balance.
    """
    with _job(config) as job:
        return _embed(config, job)


def plan(config: EmbedConfig, how: PlanConfig) -> Plan:
    """Try a sample of the pictures, and forecast the run; nothing is written.

    Raises:
        UserError: as `embed` does.
    """
    began = time.time()
    job = _job(config)
    config, network, catalog, identity = _open(config, job, "image_uris")
    job.check(identity)
    connect()
    workers = _workers(config)
    block_rows = workers.block_rows(config.predictor.batch_size, how.plan_pictures)
    columns = (*network.texts, *CARRIED)
    sample = sample_pictures(catalog, sample_size(how.plan_pictures, workers, block_rows), block_rows, columns)
    trial = Trial(
        command=JOB,
        sample=sample,
        done=job.done(sample.whole),
        stages=functools.partial(_stages, config, sample, network, source_of(config)),
        split=functools.partial(split_outcomes, folder=VECTORS, schema=_of_pictures(network)),
        workers=workers,
        rows_per_file=config.rows_per_file,
        shuffled=[catalog.products.rows + sample.whole, sample.whole],
        opened_s=time.time() - began,
    )
    return forecast(trial, how)


def _job(config: EmbedConfig) -> Job:
    return Job(JOB, config, streams=FOLDERS, makes=(EMBEDDINGS, INDEX, ENCODER), scratch=(VECTORS,))


def source_of(config: EmbedConfig) -> EncoderSource:
    """Return where what makes the vectors comes from."""
    uri = config.encoder or config.model or ""
    if config.encoder and uri.removeprefix(PACKAGE) in BACKBONES:  # one of pictures, whichever flag names it
        if config.prefix is not None:
            raise ConfigError(f"prefix is {config.prefix!r}, which is for texts; {uri} reads pictures: leave it out")
        return EncoderSource(uri, config.image_size_px)
    return EncoderSource(
        uri if uri.startswith(PACKAGE) else storage.absolute(uri),
        config.image_size_px,
        config.modality if config.encoder else None,
        config.prefix,
    )


def _open(config: EmbedConfig, job: Job, *more: str) -> tuple[EmbedConfig, Network, Catalog, dict[str, Any]]:
    """Open the model and the catalogue, with more columns of its products, and name what the run is made of.

    The first value are the settings without `auto`.
    """
    network = source_of(config).load()
    catalog = open_catalog(
        current(storage.absolute(config.catalog)),
        products=(*network.texts, *CARRIED, *more),
        needed=network.texts,
        may_be_empty=bool(network.texts),
    )
    identity: dict[str, Any] = {
        "catalog": catalog.uri,
        "input_rows": catalog.images.all_rows,
        "model_id": network.encoder_id,
        "precision": config.predictor.precision,
        "engine": config.predictor.engine,
        "width": sum(network.feature_widths),
    }
    forms = {"engine": network.engines}
    identity = settle(identity, functools.partial(_workers, config), config.predictor.device, forms, job.pinned())
    predictor = replace(config.predictor, precision=identity["precision"], engine=identity["engine"])
    return replace(config, predictor=predictor), network, catalog, identity


def _embed(config: EmbedConfig, job: Job) -> RunReport:
    output = job.output
    config, network, catalog, identity = _open(config, job)
    job.pin(identity)
    if (report := job.finished()) is not None:
        return report
    source = source_of(config).keep(network, storage.join(output, ENCODER))
    inputs = write_inputs(catalog, output, (*network.texts, *CARRIED))
    if not inputs.rows + catalog.unusable_rows:
        raise CatalogError(f"{catalog.uri}: no product and no picture to embed")
    stages = functools.partial(_stages, config, inputs, network, source)
    split = functools.partial(split_outcomes, folder=VECTORS, schema=_of_pictures(network))
    job.stream("embedding", inputs.rows, stages, split=split, rows_per_file=config.rows_per_file)
    counts = _combine(output, network, inputs.rows)
    if counts["products"]:
        build_index(output, sum(network.feature_widths))
    fields = {
        "index": "exact" if counts["products"] <= EXACT_ROWS else "ivf",
        "without_picture_by_code": picture_errors(output, VECTORS),
    }
    return job.finish(job.account(catalog, counts) | fields)


def _workers(config: EmbedConfig) -> WorkerPlan:
    predictor = config.predictor
    return plan_workers(
        device=predictor.device, workers=config.workers, threads=predictor.threads, per_gpu=config.workers_per_gpu
    )


def _stages(
    config: EmbedConfig, inputs: Pieces, network: Network, source: EncoderSource, progress: Any
) -> ray.data.Dataset:
    """Read, fetch, embed."""
    predictor = config.predictor
    workers = _workers(config)
    stream = stream_pictures(
        inputs,
        progress,
        workers,
        config,
        block_rows=workers.block_rows(predictor.batch_size, inputs.rows),
        columns=(*KEYS, *network.texts, *CARRIED),
        read=PICTURE in network.modalities,
    )
    predictor = replace(predictor, device=workers.device, threads=workers.threads)
    return ask_model(stream, workers, Embed, progress, source, predictor)


def _of_pictures(network: Network) -> pa.Schema:
    """Return the columns of `vectors`."""
    schema = embeddings(sum(network.feature_widths))
    names = ("product_id", *CARRIED, "vector", "picture_error")
    return pa.schema([("image_id", pa.int64()), *(schema.field(name) for name in names)])


def _combine(output: str, network: Network, total: int) -> dict[str, int]:
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
        schema, widths = _of_pictures(network), network.feature_widths
        rows = max(1, PARTITION_NUMBERS // sum(widths))
        combined = by_product(
            ((open_table(storage.join(output, VECTORS), schema), 0),),
            schema,
            counts["embedded"],
            functools.partial(combine, widths=widths, model_id=network.encoder_id),
            partition_rows=rows,
        )
        write_table(combined.write, output, EMBEDDINGS)
    return counts | {"products": table_rows(storage.join(output, EMBEDDINGS))}
