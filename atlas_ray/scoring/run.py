"""A scoring run: plan, stream, combine, audit, account."""

import functools
import json
import os
import platform
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from atlas_ray import __version__, storage
from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import CatalogError, ConfigError, OutputError
from atlas_ray.models import Classifier
from atlas_ray.predictors import leaf_classes
from atlas_ray.progress import ProgressDisplay
from atlas_ray.records import IMAGES, PRODUCTS, missing_columns
from atlas_ray.scoring.account import combine_products, quarantine_codes
from atlas_ray.scoring.config import ScoreConfig
from atlas_ray.scoring.fetch import Fetch
from atlas_ray.scoring.outcomes import KEYS
from atlas_ray.scoring.predict import Predict, PredictorSpec, decode_block
from atlas_ray.scoring.resume import CHECKPOINT, hold_identity, recover, rows_done
from atlas_ray.scoring.sink import OutcomeSink
from atlas_ray.taxonomy import Taxonomy, compile_trie, parse_path, read_taxonomy

SMALL_CLUSTER_CPUS = 8
CPU_WORKERS_A_NODE = 8


@dataclass(frozen=True)
class ScoreReport:
    """What a run did; `run.json` holds the same."""

    output: str
    run: dict[str, Any]
    already_done: bool = False
    """The output held a finished run of the same settings, and nothing was done."""

    @property
    def counts(self) -> dict[str, int]:
        """input, scored, filtered, quarantined, products, products_categorized."""
        return dict(self.run["counts"])

    @property
    def quarantined_fraction(self) -> float:
        """The share of the pictures that is in quarantine."""
        return float(self.counts["quarantined"] / max(self.counts["input"], 1))


def score(config: ScoreConfig) -> ScoreReport:
    """Give every picture and every product of a catalogue a category path.

    Output: `predictions/`, `quarantine/` and `products/` (Parquet; see `atlas_ray.records`), and
    `run.json` when all is done. After a crash the same call goes on from what was written.

    Raises:
        CatalogError: where the catalogue has no tables of the right columns.
        ArtifactError, TaxonomyError: where the model or the taxonomy cannot be used.
        OutputError: where the output holds a run of another model, taxonomy or catalogue.
        AuditError: where inputs and outputs do not balance.
    """
    began = time.time()
    output = storage.absolute(config.output)
    catalog = storage.absolute(config.catalog)
    images = _open_table(catalog, "images", (*KEYS,), IMAGES)
    _open_table(catalog, "products", ("product_id",), PRODUCTS)
    try:
        total = images.count_rows()
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{catalog}/images: not Parquet: {str(error).splitlines()[0]}") from None
    if total == 0:
        raise CatalogError(f"{catalog}: its images table has no row")
    spec, identity = _identity(config, catalog)
    identity["input_rows"] = total
    _same_or_new(output, identity)
    hold_identity(output, identity)
    if storage.exists(storage.join(output, "run.json")):
        run = json.loads(storage.read_bytes(storage.join(output, "run.json")))
        return ScoreReport(output, run, already_done=True)
    recover(output)
    done = rows_done(output)
    with ProgressDisplay("scoring", "pictures", total=total, done=done) as display:
        if done < total:
            _stream(config, catalog, output, spec, display)
        streamed = time.time()
        spans = display.spans()
    counts = combine_products(config, catalog, output, identity, total)
    run = {
        "job": "score",
        "written_by": f"atlas_ray {__version__}",
        "versions": {
            "ray": ray.__version__,
            "python": platform.python_version(),
            "pyarrow": pa.__version__,
        },
        "started_at": datetime.fromtimestamp(began, UTC).isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        "config": config.to_dict(),
        "identity": identity,
        "counts": counts,
        "quarantined_by_code": quarantine_codes(output),
        "resumed_from": done,
        "seconds": {
            "total": time.time() - began,
            "stream": streamed - began,
            "combine": time.time() - streamed,
            **_timings(spans),
        },
    }
    text = json.dumps(run, indent=1, ensure_ascii=False)
    storage.write_bytes(storage.join(output, "run.json"), text.encode())
    storage.delete_folder(storage.join(output, CHECKPOINT))
    return ScoreReport(output, run)


def _open_table(catalog: str, name: str, needed: tuple[str, ...], schema: pa.Schema) -> ds.Dataset:
    uri = storage.join(catalog, name)
    if not storage.files(uri, suffix=".parquet"):
        raise CatalogError(f"{catalog}: no {name} table; make one with `atlas-ray import`")
    place = storage.locate(uri)
    try:
        table = ds.dataset(place.path, filesystem=place.filesystem, format="parquet")
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{uri}: not Parquet: {str(error).splitlines()[0]}") from None
    if missing := missing_columns(table.schema, needed):
        raise CatalogError(f"{uri}: no column {missing[0]!r}; it has {table.schema.names[:12]}")
    optional = [column for column in ("category_path", "split") if column in table.schema.names]
    for column in (*needed, *optional):
        if table.schema.field(column).type != schema.field(column).type:
            found = table.schema.field(column).type
            raise CatalogError(f"{uri}: column {column!r} is {found}; expected {schema.field(column).type}")
    return table


def _identity(config: ScoreConfig, catalog: str) -> tuple[PredictorSpec, dict[str, Any]]:
    """Check model and taxonomy here, before any worker starts, and name what the run is made of."""
    artifact = load_artifact(config.model)
    taxonomy = read_taxonomy(config.taxonomy) if config.taxonomy else artifact.taxonomy
    within = parse_path(config.within) if config.within else ()
    spec = PredictorSpec(
        model=storage.absolute(config.model),
        taxonomy_json=taxonomy.to_json(),
        within=within,
        config=config.predictor,
        image_size_px=artifact.model.config.image_size_px,
    )
    predicted: Taxonomy = taxonomy.within(within) if within else taxonomy
    compile_trie(predicted, artifact.vocabulary)
    if isinstance(artifact.model, Classifier):
        leaf_classes(artifact, predicted)
    return spec, {
        "catalog": catalog,
        "model_id": artifact.id,
        "taxonomy_id": predicted.id,
        "search": config.predictor.search,
        "beam_width": config.predictor.beam_width,
        "top_k": config.predictor.top_k,
        "precision": config.predictor.precision,
    }


def _same_or_new(output: str, identity: dict[str, Any]) -> None:
    if storage.exists(storage.join(output, "model.json")) or storage.exists(storage.join(output, "taxonomy.json")):
        raise OutputError(f"{output} holds a model or a catalogue; score into a folder of its own")
    if output == identity["catalog"]:
        raise OutputError(f"{output} is the catalogue itself; score into a folder of its own")


def _stream(config: ScoreConfig, catalog: str, output: str, spec: PredictorSpec, display: ProgressDisplay) -> None:
    """Read, fetch, decode, predict, write; what an earlier run committed is left out."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    cpus = sum(node.get("CPU", 0) for node in nodes)
    if config.predictor.device.startswith("cuda") and not gpus:
        raise ConfigError(f"device is {config.predictor.device!r}, but the Ray cluster has no GPU")
    if config.predictor.device == "cpu":
        gpus = 0
    # Actors that hold CPUs would starve the reading tasks of a small cluster, and a GPU's worker
    # needs few; elsewhere a quarter of the CPUs is left to them.
    free = gpus > 0 or cpus < SMALL_CLUSTER_CPUS
    # A local Ray counts more CPUs than there are cores, so that the stages never wait for each other.
    cores = min(cpus, os.cpu_count() or 1) if len(nodes) == 1 else cpus
    cores = cores if free else int(cores * 0.75)
    workers = config.workers or gpus or int(max(1, min(cores, CPU_WORKERS_A_NODE * len(nodes))))
    threads = config.predictor.threads or (0 if gpus else int(max(1, cores // workers)))
    if workers > (gpus or max(cores, config.workers if free else 0)) or (not free and workers * threads > cores):
        raise ConfigError(
            f"{workers} workers of {threads} threads do not fit the cluster's {cpus:.0f} CPUs and {gpus} GPUs"
        )
    spec = replace(spec, config=replace(spec.config, threads=threads))
    apart = config.decode_stage == "stage" or (
        config.decode_stage == "auto" and gpus > 0 and any(not node.get("GPU") for node in nodes)
    )
    block_rows = config.predictor.batch_size * (8 if gpus else 2)
    checkpoint = storage.locate(storage.join(output, CHECKPOINT))
    for folder in ("predictions", "quarantine", CHECKPOINT):
        storage.make_folder(storage.join(output, folder))
    context = DataContext.get_current().copy()
    context.checkpoint_config = CheckpointConfig(
        id_column="image_id",
        checkpoint_path=checkpoint.path,
        override_filesystem=checkpoint.filesystem,
        delete_checkpoint_on_success=False,
    )
    context.use_datasource_v2 = False  # it starts a pool of actors for footers that hold no news here
    context.wait_for_min_actors_s = 1800  # nothing is read before the models are loaded
    with DataContext.current(context):
        place = storage.locate(storage.join(catalog, "images"))
        stream = ray.data.read_parquet(place.path, filesystem=place.filesystem).select_columns(list(KEYS))
        stream = stream.repartition(target_num_rows_per_block=block_rows)
        stream = stream.map_batches(
            Fetch,
            fn_constructor_args=(display.board,),
            fn_constructor_kwargs={"threads": config.fetch_threads, "timeout_s": config.timeout_s},
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=1, max_size=max(1, workers)),
            num_cpus=0 if free else 1,
        )
        if apart:
            stream = stream.map_batches(
                functools.partial(decode_block, image_size_px=spec.image_size_px),
                batch_size=None,
                batch_format="pyarrow",
            )
        stream = stream.map_batches(
            Predict,
            fn_constructor_args=(display.board, spec),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(size=workers),
            num_cpus=0 if free else threads,
            num_gpus=1 if gpus else 0,
        )
        sink = OutcomeSink(output, display.board, rows_per_file=config.rows_per_file)
        stream.write_datasink(sink)


def _timings(spans: dict[str, tuple[float, float, float]]) -> dict[str, float]:
    """Return how long each stage's workers were busy, and the stream from first read to last write."""
    busy = {f"{stage}_busy": span[2] for stage, span in spans.items()}
    if "fetch" in spans and "write" in spans:
        busy["first_read_to_last_write"] = spans["write"][1] - spans["fetch"][0]
    return busy
