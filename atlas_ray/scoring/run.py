"""A scoring run: plan, stream, combine, audit, account."""

import functools
import time
from dataclasses import replace
from typing import Any

from ray.data import ActorPoolStrategy, DataContext

from atlas_ray.artifacts import Artifact, load_artifact, load_zoom_artifact
from atlas_ray.decoding import leaf_classes
from atlas_ray.errors import ArtifactError, CatalogError, OutputError, TaxonomyError, tell
from atlas_ray.formats.fitted import Fitted
from atlas_ray.formats.tables import Table
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.decision import Decision, least_threshold
from atlas_ray.runs.run_record import RunReport, picture_errors, quarantine_codes, read_run, timings, write_run
from atlas_ray.runs.scored import PREDICTED
from atlas_ray.runtime.checkpoint import checkpointed, close, recover, reopen, rows_done
from atlas_ray.runtime.joined import forget_inputs, write_inputs
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.runtime.pictures import fetched_pictures
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.sink import OutcomeSink
from atlas_ray.runtime.tables import count_labels, open_catalog
from atlas_ray.runtime.workers import plan_workers
from atlas_ray.scoring.account import OF_PRODUCTS, combine_products
from atlas_ray.scoring.predict import Predict, PredictorSpec, decode_block, split_scored
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.settings import pin_settings
from atlas_ray.taxonomy import Taxonomy, compile_trie, match_labels, match_leaves, parse_path, read_taxonomy

IDENTITY = "score.json"
FOLDERS = ("predictions", "filtered", "quarantine")
"""What the stream writes in."""


@holding("score", "config.output")
def score(config: ScoreConfig) -> RunReport:
    """Give every picture and every product of a catalogue a category path.

    Output: `predictions/`, `quarantine/` and `products/` (Parquet; see `atlas_ray.schemas`), and
    `run.json` when all is done. After a crash the same call goes on from what was written.

    Raises:
        CatalogError: where the catalogue has no tables of the right columns.
        ArtifactError, TaxonomyError: where the model or the taxonomy cannot be used.
        OutputError: where the output holds a run of another model, taxonomy or catalogue.
        AuditError: where inputs and outputs do not balance.
    """
    began = time.time()
    if config.taxonomy and storage.exists(config.taxonomy):  # else a built-in one, by its name
        config = replace(config, taxonomy=storage.absolute(config.taxonomy))
    output = storage.absolute(config.output)
    spec, identity, fitted = _identity(config, storage.absolute(config.catalog))
    catalog = open_catalog(
        identity["catalog"],
        products=(*OF_PRODUCTS, *spec.texts),
        needed=spec.texts,
        may_be_empty=bool(spec.texts),  # a product without a picture still has its texts
    )
    identity["input_rows"] = catalog.images.all_rows
    predicted = _predicted(spec)
    unasked = read_run(output) is not None or config.taxonomy or config.within
    notes = [] if unasked else _notes(catalog.uri, config.model, predicted)
    _hold_identity(output, identity)
    if (run := reopen(output, FOLDERS, retry_failed=config.retry_failed)) is not None:
        return RunReport(output, run, already_done=True)
    storage.write_bytes(storage.join(output, PREDICTED), predicted.to_json().encode())
    for note in notes:
        tell(note)
    connect()
    source = write_inputs(catalog, output, spec.texts) if spec.texts else catalog.images
    total = source.rows
    if not total + catalog.unusable_rows:
        raise CatalogError(f"{catalog.uri}: no product and no picture to score")
    done = rows_done(output)
    with ProgressDisplay("scoring", "pictures", total=total, done=done) as display:
        if done < total:
            _stream(config, source, output, spec, display)
        streamed = time.time()
        spans = display.spans()
    recover(output, FOLDERS)  # what no commit names is none of the outcomes that are counted now
    counts = combine_products(config, catalog, source, output, identity, fitted)
    fields = {
        "config": config.to_dict(),
        "identity": identity,
        "counts": counts,
        "unreadable_values": catalog.account(),
        "notes": notes,
        "fitted_products_known": fitted is not None,
        "quarantined_by_code": quarantine_codes(output),
        "without_picture_by_code": picture_errors(output) if spec.texts else {},
        "resumed_from": done,
        "seconds": {
            "total": time.time() - began,
            "stream": streamed - began,
            "combine": time.time() - streamed,
            **timings(spans),
        },
    }
    run = write_run(output, "score", began, fields)
    close(output, (), run)
    forget_inputs(output)
    return RunReport(output, run)


def _predicted(spec: PredictorSpec) -> Taxonomy:
    """Return what may be answered."""
    taxonomy = Taxonomy.from_json(spec.taxonomy_json, source="the scoring run")
    return taxonomy.within(spec.within) if spec.within else taxonomy


def _notes(catalog: str, model: str, predicted: Taxonomy) -> list[str]:
    """Return which labels and leaves of a catalogue its answers cannot be.

    Raises:
        TaxonomyError: where the model is of another taxonomy than the labels altogether.
    """
    uri = storage.join(catalog, "taxonomy.json")
    own = read_taxonomy(uri) if storage.exists(uri) else None
    if own is not None and own.id == predicted.id:
        return []
    names = {"labelled": f"the catalogue {catalog}", "predicted": f"the model {model}"}
    labels = count_labels(catalog)
    try:
        note = (
            match_labels(labels, predicted, **names) if labels else own and match_leaves(own.leaves, predicted, **names)
        )
    except TaxonomyError as error:
        raise TaxonomyError(f"{error}; if that is meant, say so with --taxonomy {model}/taxonomy.json") from None
    return [note] if note else []


def _identity(config: ScoreConfig, catalog: str) -> tuple[PredictorSpec, dict[str, Any], Fitted | None]:
    """Check model and taxonomy here, before any worker starts, and name what the run is made of."""
    artifact = load_artifact(config.model)
    taxonomy = read_taxonomy(config.taxonomy) if config.taxonomy else artifact.taxonomy
    within = parse_path(config.within) if config.within else ()
    sizes = [artifact.image_size_px] if artifact.image_size_px else []
    zoom_id, threshold = None, None
    if config.zoom_model:
        zoom = load_zoom_artifact(config.zoom_model)
        zoom_id, threshold = zoom.id, zoom.model.config.threshold
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
        texts=artifact.texts,
    )
    predicted: Taxonomy = taxonomy.within(within) if within else taxonomy
    compile_trie(predicted, artifact.vocabulary)
    if not artifact.spells:
        leaf_classes(artifact.taxonomy, predicted)
    identity = {
        "catalog": catalog,
        "model_id": artifact.id,
        "taxonomy_id": predicted.id,
        "search": config.predictor.search,
        "beam_width": config.predictor.beam_width,
        "top_k": config.predictor.top_k,
        "precision": config.predictor.precision,
        "engine": config.predictor.engine,
        "zoom_model_id": zoom_id,
        "zoom_threshold": threshold,
        "target_precision": config.target_precision,
        "decision_threshold": _decision_threshold(artifact, config),
    }
    return spec, identity, artifact.fitted


def _decision_threshold(artifact: Artifact, config: ScoreConfig) -> float | None:
    """Return how sure an answer has to be, as the calibration found; None where every leaf will do."""
    if config.target_precision is None:
        return None
    curve = [Decision(**row) for row in artifact.metrics.get("calibration", {}).get("decisions", ())]
    if not curve:
        raise ArtifactError(
            f"{config.model}: not calibrated, so that no precision can be promised; "
            f"run `atlas-ray calibrate --model {config.model} --catalog CATALOG` first"
        )
    decision = least_threshold(curve, config.target_precision)
    if decision is None:
        best = max(one.precision for one in curve)
        raise ArtifactError(
            f"{config.model}: no threshold reached the precision {config.target_precision} on the products that it was "
            f"calibrated on; the best reached {best:.4f}"
        )
    return decision.threshold


def _hold_identity(output: str, identity: dict[str, Any]) -> None:
    """Keep what the run is made of, or check that the output holds a run made of the same.

    Raises:
        OutputError: naming the first difference: one output never holds two models, taxonomies or
            catalogues.
    """
    if storage.exists(storage.join(output, "model.json")) or storage.exists(storage.join(output, "taxonomy.json")):
        raise OutputError(f"{output} holds a model or a catalogue; score into a folder of its own")
    if output == identity["catalog"]:
        raise OutputError(f"{output} is the catalogue itself; score into a folder of its own")
    if not storage.exists(storage.join(output, IDENTITY)):
        for name in (*FOLDERS, "products"):
            if storage.files(storage.join(output, name)):
                raise OutputError(f"{output} holds {name} of another origin; score into a new folder")
    pin_settings(output, IDENTITY, identity)


def _stream(config: ScoreConfig, source: Table, output: str, spec: PredictorSpec, display: ProgressDisplay) -> None:
    """Read, fetch, decode, predict, write; what an earlier run committed is left out."""
    predictor = config.predictor
    plan = plan_workers(device=predictor.device, workers=config.workers, threads=predictor.threads)
    spec = replace(spec, config=replace(predictor, threads=plan.threads))
    apart = config.decode_stage == "stage" or (config.decode_stage == "auto" and plan.gpus > 0 and plan.cpu_nodes)
    apart = apart and bool(spec.sizes_px)
    for folder in FOLDERS:
        storage.make_folder(storage.join(output, folder))
    with DataContext.current(checkpointed(output)):
        stream = fetched_pictures(
            source,
            display.board,
            plan,
            block_rows=predictor.batch_size * (8 if plan.gpus else 2),
            fetch_threads=config.fetch_threads,
            timeout_s=config.timeout_s,
            outage_s=config.outage_s,
            columns=(*KEYS, *spec.texts),
            read=bool(spec.sizes_px),
        )
        if apart:
            stream = stream.map_batches(
                functools.partial(decode_block, sizes_px=spec.sizes_px, limits=predictor.limits),
                batch_size=None,
                batch_format="pyarrow",
            )
        stream = stream.map_batches(
            Predict,
            fn_constructor_args=(display.board, spec),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(size=plan.workers),
            **plan.actor_options,
        )
        sink = OutcomeSink(output, display.board, split=split_scored, rows_per_file=config.rows_per_file)
        stream.write_datasink(sink)
