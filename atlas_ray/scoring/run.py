"""A scoring run: plan, stream, combine, audit, account."""

import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray.data

from atlas_ray.artifacts import load_artifact, load_zoom_artifact
from atlas_ray.decoding.scope import leaf_classes
from atlas_ray.errors import CatalogError, ConfigError, TaxonomyError, tell
from atlas_ray.formats.fitted import Fitted
from atlas_ray.formats.tables import Table, current
from atlas_ray.io import storage
from atlas_ray.metrics.zoom import warn_of_recall
from atlas_ray.prediction.engines import PLAIN
from atlas_ray.runs.run_record import RunReport, picture_errors, read_run
from atlas_ray.runs.scored import PREDICTED
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.joined import write_inputs
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.runtime.pictures import ask_model, stream_pictures
from atlas_ray.runtime.plan import Plan, Trial, forecast, sample_pictures, sample_size
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import PlanConfig
from atlas_ray.runtime.settled import settle
from atlas_ray.runtime.source import Pieces, read_table
from atlas_ray.runtime.tables import Catalog, count_labels, open_catalog
from atlas_ray.runtime.workers import WorkerPlan, plan_workers
from atlas_ray.scoring.account import account_of_cascade, combine_products
from atlas_ray.scoring.carry import CARRIED_PICTURES, TO_SCORE, Previous, carry_over, open_previous
from atlas_ray.scoring.combine import OF_PRODUCTS
from atlas_ray.scoring.gate import TextGate
from atlas_ray.scoring.outcomes import spared_pictures, split_scored
from atlas_ray.scoring.predict import Predict, PredictorSpec, PredictVectors, decode_block, engine_of_zoom
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.scoring.thresholds import decision_threshold, label_thresholds, texts_alone
from atlas_ray.scoring.vectors import COLUMNS, Vectors, open_vectors
from atlas_ray.taxonomy import Taxonomy, compile_trie, match_labels, match_leaves, parse_path, read_taxonomy

FOLDERS = ("predictions", "filtered", "quarantine")
"""What the stream writes in."""
ANSWERS = 2
"""The version of what the program answers about a picture. A change that makes it answer otherwise raises it; earlier
answers are then not carried over."""


def score(config: ScoreConfig) -> RunReport:
    """Give every picture and every product of a catalogue a category path.

    Output: `predictions/`, `quarantine/` and `products/` (Parquet; see `atlas_ray.schemas`), and
    `run.json` when all is done. After a crash the same call goes on from what was written.

    Raises:
        CatalogError: if the catalogue has no tables of the right columns.
        ArtifactError, TaxonomyError: if the model or the taxonomy cannot be used.
        OutputError: if the output holds a run of another model, taxonomy or catalogue.
        AuditError: if inputs and outputs do not balance.
    """
    config = _absolute(config)
    with _job(config) as job:
        return _score(config, job)


def plan(config: ScoreConfig, how: PlanConfig) -> Plan:
    """Try a sample of the pictures, and forecast the run; nothing is written.

    Raises:
        UserError: as `score` does.
    """
    began = time.time()
    config = _absolute(config)
    job = _job(config)
    if config.embeddings:
        raise ConfigError("--plan tries pictures, and --embeddings reads none; leave one of them out")
    spec, identity, _, previous, catalog, _ = _open(config, job, "image_uris")
    job.check(identity)
    notes = _open_notes(config, job.output, catalog, spec)
    if previous is not None:
        why = previous.difference(identity)
        what = f"nothing is: {why}" if why else "the forecast is of scoring all"
        notes.append(f"what can be carried over from {previous.uri} is known once the pictures are compared; {what}")
    connect()
    workers = _workers(config)
    block_rows = workers.block_rows(config.predictor.batch_size, how.plan_pictures)
    sample = sample_pictures(catalog, sample_size(how.plan_pictures, workers, block_rows), block_rows, spec.texts)
    rows = catalog.products.rows + sample.whole
    trial = Trial(
        command="score",
        sample=sample,
        done=job.done(sample.whole),
        stages=functools.partial(_stages, config, sample, spec),
        split=split_scored,
        workers=workers,
        rows_per_file=config.rows_per_file,
        shuffled=[rows + sample.whole, *([rows] if spec.texts else [])],
        opened_s=time.time() - began,
        notes=notes,
        look=spared_pictures if spec.texts_alone else lambda _: (),
    )
    return forecast(trial, how)


def _absolute(config: ScoreConfig) -> ScoreConfig:
    if config.taxonomy and storage.exists(config.taxonomy):  # else a built-in one, by its name
        return replace(config, taxonomy=storage.absolute(config.taxonomy))
    return config


def _job(config: ScoreConfig) -> Job:
    scratch = (TO_SCORE, CARRIED_PICTURES)
    return Job("score", config, streams=FOLDERS, makes=("products", PREDICTED), scratch=scratch)


def _open(
    config: ScoreConfig, job: Job, *more: str
) -> tuple[PredictorSpec, dict[str, Any], Fitted | None, Previous | None, Catalog, Vectors | None]:
    """Open the model, the taxonomy, the earlier run, the catalogue and its vectors; name what the run is made of.

    Args:
        config: The settings.
        job: The job, whose output may hold a part of the run.
        more: Further columns of the products, if the model reads texts.
    """
    spec, forms, identity, fitted, vectors = _identity(config, current(storage.absolute(config.catalog)))
    previous = open_previous(config.previous) if config.previous else None
    identity |= {"previous": previous and previous.uri, "trust": config.trust if previous else None}
    catalog = open_catalog(
        identity["catalog"],
        products=(*OF_PRODUCTS, *spec.texts, *(more if spec.texts else ())),
        needed=spec.texts,
        may_be_empty=bool(spec.texts or vectors),  # a product without a picture still has its texts, or a vector
    )
    identity["input_rows"] = (vectors or catalog.images).all_rows
    known = previous.run.get("identity") if previous else None
    workers = functools.partial(_workers, config)
    identity = settle(identity, workers, config.predictor.device, forms, job.pinned(), known)
    settled = replace(config.predictor, precision=identity["precision"], engine=identity["engine"])
    spec = replace(spec, config=settled, zoom_engine=identity["zoom_engine"] or PLAIN)
    return spec, identity, fitted, previous, catalog, vectors


def _score(config: ScoreConfig, job: Job) -> RunReport:
    output = job.output
    spec, identity, fitted, previous, catalog, vectors = _open(config, job)
    predicted = _predicted(spec)
    notes = _open_notes(config, output, catalog, spec)
    job.pin(identity)
    if (report := job.finished()) is not None:
        return report
    storage.write_bytes(storage.join(output, PREDICTED), predicted.to_json().encode())
    for note in notes:
        tell(note)
    source, images, kept = _inputs(config, catalog, job, spec, previous, vectors)
    if not sum(table.rows for table in images) + catalog.unusable_rows:
        raise CatalogError(f"{catalog.uri}: no product and no picture to score")
    stages = functools.partial(_stages, config, source, spec)
    job.stream("scoring", source.rows, stages, split=split_scored, rows_per_file=config.rows_per_file)
    streamed = time.time()
    counts = combine_products(config, catalog, images, output, identity, fitted)
    job.seconds["combine"] = time.time() - streamed
    fields = {
        "previous": kept,
        "cascade": account_of_cascade(spec.texts_alone, counts, catalog.images.rows),
        "notes": notes,
        "fitted_products_known": fitted is not None,
        "without_picture_by_code": picture_errors(output) if spec.texts or vectors else {},
    }
    return job.finish(job.account(catalog, counts) | fields)


def _inputs(
    config: ScoreConfig,
    catalog: Catalog,
    job: Job,
    spec: PredictorSpec,
    previous: Previous | None,
    vectors: Vectors | None,
) -> tuple[Table, Sequence[Table], dict[str, Any] | None]:
    """Return the table to score, the tables of all pictures, and what `run.json` says of the earlier run."""
    account: dict[str, Any] | None = None
    if vectors is not None:
        table = vectors.joined(job.output)
        return table, [table], account
    if previous is not None:
        if (reason := previous.difference(job.identity)) is None:
            connect()  # Ray's start is not the comparison's time
            started = time.time()
            carried = carry_over(previous, catalog, job.output, spec.texts, config.trust, config)
            job.seconds["compare"] = time.time() - started
            images = [carried.to_score, carried.pictures] if spec.texts else [catalog.images]
            return carried.to_score, images, {"run": previous.uri, **carried.account()}
        tell(f"nothing is carried over from {previous.uri}: {reason}")
        account = {"run": previous.uri, "carries_nothing": reason}
    source = write_inputs(catalog, job.output, spec.texts) if spec.texts else catalog.images
    return source, [source], account


def _predicted(spec: PredictorSpec) -> Taxonomy:
    """Return what may be answered."""
    taxonomy = Taxonomy.from_json(spec.taxonomy_json, source="the scoring run")
    return taxonomy.within(spec.within) if spec.within else taxonomy


def _open_notes(config: ScoreConfig, output: str, catalog: Catalog, spec: PredictorSpec) -> list[str]:
    """Return the notes of a run that begins, unless its user has named what may be answered."""
    if read_run(output) is not None or config.taxonomy or config.within:
        return []
    return _notes(catalog.uri, config.model, _predicted(spec), paths=spec.paths)


def _notes(catalog: str, model: str, predicted: Taxonomy, *, paths: bool) -> list[str]:
    """Return which labels and leaves of a catalogue its answers cannot be.

    Raises:
        TaxonomyError: if a model of paths is of another taxonomy than the labels altogether.
    """
    uri = storage.join(catalog, "taxonomy.json")
    own = read_taxonomy(uri) if storage.exists(uri) else None
    if own is not None and own.id == predicted.id:
        return []
    names = {"labelled": f"the catalogue {catalog}", "predicted": f"the model {model}"}
    labels = count_labels(catalog)
    try:
        note = (
            match_labels(labels, predicted, **names, leaves_only=not paths)
            if labels
            else own and match_leaves(own.leaves, predicted, **names)
        )
    except TaxonomyError as error:
        if not paths:  # it was asked for names, and says its own
            return [str(error)]
        raise TaxonomyError(f"{error}; if that is meant, say so with --taxonomy {model}/taxonomy.json") from None
    return [note] if note else []


def _identity(
    config: ScoreConfig, catalog: str
) -> tuple[PredictorSpec, dict[str, Sequence[str]], dict[str, Any], Fitted | None, Vectors | None]:
    """Check model and taxonomy here, before any worker starts, and name what the run is made of.

    The second value is what `settle` takes: the engines that the networks are compiled for.
    """
    artifact = load_artifact(config.model, target=None)
    vectors = open_vectors(config.embeddings, artifact, config.model) if config.embeddings else None
    taxonomy = read_taxonomy(config.taxonomy) if config.taxonomy else artifact.taxonomy
    within = parse_path(config.within) if config.within else ()
    sizes = [artifact.image_size_px] if artifact.image_size_px and vectors is None else []
    forms: dict[str, Sequence[str]] = {"engine": artifact.engines}
    zoom_id, threshold, zoom_engine = None, None, None
    if config.zoom_model:
        zoom = load_zoom_artifact(config.zoom_model)
        forms["zoom_engine"] = zoom.engines
        zoom_engine = engine_of_zoom(config.predictor.engine, zoom.engines)
        zoom_id, threshold = zoom.id, zoom.model.config.threshold
        if config.zoom_threshold is None and (warning := warn_of_recall(zoom.metrics)) is not None:
            tell(warning)
        threshold = threshold if config.zoom_threshold is None else config.zoom_threshold
        sizes.append(zoom.model.config.image_size_px)
    spec = PredictorSpec(
        model=storage.absolute(config.model),
        taxonomy_json=taxonomy.to_json(),
        within=within,
        config=config.predictor,
        sizes_px=tuple(dict.fromkeys(sizes)),
        zoom_model=storage.absolute(config.zoom_model) if config.zoom_model else None,
        zoom_threshold=threshold,
        texts=artifact.texts if vectors is None else (),
        paths=artifact.labels is None,
    )
    if artifact.labels and (config.taxonomy or config.within):
        raise ConfigError(
            f"{config.model} names labels, each by itself; leave --taxonomy and --within out, which are for paths"
        )
    predicted: Taxonomy = taxonomy.within(within) if within else taxonomy
    compile_trie(predicted, artifact.vocabulary)
    if not artifact.spells and artifact.labels is None:
        leaf_classes(artifact.taxonomy, predicted)
    surest = decision_threshold(artifact, config)
    spec = replace(spec, texts_alone=texts_alone(artifact, config, least=surest or 0.0))
    identity = {
        "catalog": catalog,
        "model_id": artifact.id,
        "embeddings": vectors and vectors.uri,
        "encoder_id": vectors and vectors.encoder_id,
        "taxonomy_id": predicted.id,
        "search": config.predictor.search,
        "beam_width": config.predictor.beam_width,
        "top_k": config.predictor.top_k,
        "precision": config.predictor.precision,
        "engine": config.predictor.engine,
        "zoom_engine": zoom_engine,
        "min_side_px": config.predictor.min_side_px,
        "answers": ANSWERS,
        "zoom_model_id": zoom_id,
        "zoom_threshold": threshold,
        "target_precision": config.target_precision,
        "decision_threshold": surest,
        "cascade": config.cascade,
        "cascade_threshold": spec.texts_alone and spec.texts_alone.threshold,
        "thresholds": label_thresholds(artifact, config),
    }
    return spec, forms, identity, artifact.fitted, vectors


def _workers(config: ScoreConfig) -> WorkerPlan:
    predictor = config.predictor
    return plan_workers(
        device=predictor.device, workers=config.workers, threads=predictor.threads, per_gpu=config.workers_per_gpu
    )


def _stages(config: ScoreConfig, source: Pieces, spec: PredictorSpec, progress: Any) -> ray.data.Dataset:
    """Read, fetch, decode, predict."""
    workers = _workers(config)
    spec = replace(spec, config=replace(spec.config, device=workers.device, threads=workers.threads))
    if config.embeddings:
        stream = read_table(source, COLUMNS)
        return ask_model(stream, workers, PredictVectors, progress, spec)
    decodes_apart = config.decode_stage == "stage" or (config.decode_stage == "auto" and workers.decodes_apart)
    stream = stream_pictures(
        source,
        progress,
        workers,
        config,
        block_rows=workers.block_rows(spec.config.batch_size, source.rows),
        columns=(*KEYS, *spec.texts),
        read=bool(spec.sizes_px),
        make_gate=functools.partial(TextGate, spec) if spec.texts_alone else None,
    )
    if decodes_apart and spec.sizes_px:
        stream = stream.map_batches(
            functools.partial(decode_block, sizes_px=spec.sizes_px, limits=spec.config.limits),
            batch_size=None,
            batch_format="pyarrow",
        )
    return ask_model(stream, workers, Predict, progress, spec)
