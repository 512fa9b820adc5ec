"""A migration: the tables of a scoring run, or the labels of a catalogue, in the next version of the taxonomy.

Each Parquet file becomes one of the same name, read and written in batches by one Ray task; a task that is tried
again replaces what it wrote.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from atlas_ray.errors import AuditError, CatalogError, TaxonomyError
from atlas_ray.formats.tables import Piece, Table, current, open_table
from atlas_ray.io import storage
from atlas_ray.migration.rows import Destinations, migrate_labels, migrate_predictions
from atlas_ray.migration.settings import MigrateConfig
from atlas_ray.runs.leaves import find_leaves
from atlas_ray.runs.run_record import RunReport, read_run
from atlas_ray.runs.scored import PREDICTED
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.tables import (
    SPLIT,
    copy_documents,
    copy_table,
    forget_unusable,
    open_catalog,
    table_rows,
)
from atlas_ray.schemas import CATEGORIZED, PREDICTIONS
from atlas_ray.taxonomy import compare, read_mapping, read_taxonomy
from atlas_ray.taxonomy.changes import TaxonomyChanges

RESCORE, RELABEL = "rescore", "relabel"
OUTCOMES = ("migrated", "undetermined", "without_path")
BATCH_ROWS = 20_000
ANSWER = ("category_path", "probability", "level_probabilities", "alternatives", "outside_probability", "taxonomy_id")


@dataclass(frozen=True)
class _Table:
    """A table to migrate."""

    name: str
    predicted: bool = False
    """Whether the table has predictions."""
    label: str | None = None
    """The name of the column of labels."""


RUN_TABLES = (_Table("products", predicted=True, label="true_category_path"), _Table("predictions", predicted=True))
CATALOG_TABLES = (_Table("products", label="category_path"),)
MADE = ("products", "predictions", "images", "taxonomy.json", RESCORE, RELABEL)


def migrate(config: MigrateConfig) -> RunReport:
    """Rewrite a scoring run, or a catalogue's labels, to the next version of its taxonomy.

    Of a run, `products/` and `predictions/` are written anew, each with all of its rows; the products whose leaf has
    no certain place, or whose answer above it has none, become null there and are listed in `rescore/`. Of a
    catalogue `products/` is, beside a copy of `images/` and the new `taxonomy.json`. Labels without a certain place
    become null and are listed in `relabel/`. `changes.json` says what became of each path. `run.json` completes the
    output; until it is there the same call begins anew.

    Raises:
        CatalogError: if there is no finished run or no catalogue, or a table is damaged.
        TaxonomyError: if a taxonomy or the mapping cannot be used, or all is of the new taxonomy already.
        OutputError: if the output holds something else.
        AuditError: if a table lost or gained a row.
    """
    with Job("taxonomy migrate", config, makes=MADE) as job:
        return _migrate(config, job)


def _migrate(config: MigrateConfig, job: Job) -> RunReport:
    source, output = current(storage.absolute(config.run or config.catalog or "")), job.output
    old, new = read_taxonomy(config.old), read_taxonomy(config.new)
    changes = compare(old, new, read_mapping(config.mapping) if config.mapping else None)
    before = _run_identity(source) if config.run else _catalog_identity(source)
    if before["taxonomy_id"] == new.id != old.id:
        raise TaxonomyError(f"{source} is of the taxonomy {config.new} already, whose id is {new.id}")
    catalog = (
        open_catalog(source, needed=("category_path",), others=True, may_be_empty=True) if config.catalog else None
    )
    opened = {CATALOG_TABLES[0]: catalog.products} if catalog else _run_tables(source)
    tables = tuple(opened)
    document = changes.to_json().encode()
    hashed = {"old_taxonomy_id": old.id, "changes": hashlib.sha256(document).hexdigest()}
    job.pin({**before, "taxonomy_id": new.id, **hashed})
    if (report := job.finished()) is not None:
        return report
    connect()
    for folder in (*(table.name for table in tables), RESCORE, RELABEL):
        storage.delete_folder(storage.join(output, folder))
        storage.make_folder(storage.join(output, folder))
    storage.write_bytes(storage.join(output, "changes.json"), document)
    forget_unusable(output)
    rows = {table.name: stored.rows for table, stored in opened.items()}
    counts = _migrate_tables(opened, output, changes, new.id)
    if config.run:
        storage.write_bytes(storage.join(output, PREDICTED), new.to_json().encode())
    if catalog:
        copy_table(catalog.images, storage.join(output, "images"))
        copy_documents(source, output, (SPLIT,))
        storage.write_bytes(storage.join(output, "taxonomy.json"), new.to_json().encode())
    _audit(output, rows, tables, counts)
    fields = {
        "made_with_taxonomy_id": before["taxonomy_id"],
        "counts": {
            name: counts[name]
            for kind in _kinds(tables)
            for name in (kind, *(f"{kind}_{outcome}" for outcome in OUTCOMES))
        },
        "undetermined_by_reason": {
            kind: {name.partition(":")[2]: count for name, count in counts.items() if name.startswith(f"{kind}:")}
            for kind in _kinds(tables)
        },
        "unusable_rows": catalog.write_unusable(output, "migrate") if catalog else 0,
        "unreadable_values": catalog.account() if catalog else {},
    }
    return job.finish(fields)


def _migrate_tables(
    opened: Mapping[_Table, Table], output: str, changes: TaxonomyChanges, taxonomy_id: str
) -> Counter[str]:
    """Rewrite tables, a Ray task a file, and count what became of their rows."""
    counts = Counter[str]()
    with ProgressDisplay("migrating", "rows", total=sum(stored.rows for stored in opened.values())) as display:
        shared, task = ray.put((changes.destinations, changes.label_destinations)), ray.remote(_migrate_file)
        pending = [
            task.remote(table, piece, _file_name(stored, piece), output, shared, taxonomy_id, display.actor)
            for table, stored in opened.items()
            for piece in stored.pieces()
        ]
        for one in ray.get(pending):
            counts.update(one)
    return counts


def _run_identity(source: str) -> dict[str, Any]:
    run = read_run(source)
    if run is None or run.get("job") not in ("score", "migrate"):
        raise CatalogError(f"{source} is no finished scoring run; run `atlas-ray score` to its end first")
    identity = run.get("identity")
    if not isinstance(identity, dict) or not identity.keys() >= {"model_id", "taxonomy_id"}:
        raise CatalogError(f"{source}/run.json names no model and taxonomy; score the catalogue anew")
    if identity.get("thresholds") is not None:
        raise CatalogError(f"{source} is a run of labels, which stand in no place of a taxonomy; train and score anew")
    return {"run": source, "model_id": identity["model_id"], "taxonomy_id": identity["taxonomy_id"]}


def _catalog_identity(source: str) -> dict[str, Any]:
    uri = storage.join(source, "taxonomy.json")
    return {"catalog": source, "taxonomy_id": read_taxonomy(uri).id if storage.exists(uri) else None}


def _run_tables(source: str) -> dict[_Table, Table]:
    """Open the tables of a scoring run; `predictions` may be missing.

    Raises:
        CatalogError: if there is none, or naming one that is damaged, lacks a column or has it of another type.
    """
    products, predictions = RUN_TABLES
    opened = {
        products: open_table(
            storage.join(source, "products"),
            CATEGORIZED,
            needed=("product_id", *ANSWER, "true_category_path"),
            others=True,
        ),
        predictions: open_table(
            storage.join(source, "predictions"),
            PREDICTIONS,
            needed=("product_id", *ANSWER),
            others=True,
            may_be_missing=True,
        ),
    }
    for table in opened.values():
        if table.unusable_rows:
            raise CatalogError(f"{table.uri}: {table.unusable_rows} rows have no key; score the catalogue anew")
    return opened


def _file_name(table: Table, piece: Piece) -> str:
    """Return a name for what becomes of a file: its own, with its folders."""
    return piece.file.uri[len(table.uri) :].strip("/").replace("/", "-")


def _migrate_file(
    table: _Table,
    piece: Piece,
    name: str,
    output: str,
    destinations: tuple[Destinations, Destinations],
    taxonomy_id: str,
    progress: Any,
) -> Counter[str]:
    """Rewrite one file of a table, list what has no certain place, and count both.

    `destinations` are those of predictions and those of labels.
    """
    of_predictions, of_labels = destinations
    counts = Counter[str]()
    with contextlib.ExitStack() as files:
        writers: dict[str, pq.ParquetWriter] = {}

        def write(folder: str, rows: pa.Table) -> None:
            if folder not in writers:
                stream = files.enter_context(storage.writing(storage.join(output, folder, name)))
                writers[folder] = files.enter_context(pq.ParquetWriter(stream, rows.schema))
            writers[folder].write_table(rows)

        for rows in piece.tables(BATCH_ROWS):
            if table.predicted:
                before = _answered(rows)
                rows, lost = migrate_predictions(rows, of_predictions, taxonomy_id)
                counts.update(_outcomes(table.name, before, _answered(rows), lost))
                if table.name == "products" and len(lost):
                    write(RESCORE, lost)
            if table.label:
                before = rows[table.label].is_valid()
                rows, lost = migrate_labels(rows, table.label, of_labels)
                counts.update(_outcomes("labels", before, rows[table.label].is_valid(), lost))
                if len(lost):
                    write(RELABEL, lost)
            write(table.name, rows)
            progress.add.remote({"rows": len(rows)})
    return counts


def _answered(rows: pa.Table) -> pa.ChunkedArray:
    """Return which rows have an answer, or a leaf that was not sure enough for one."""
    return pc.or_(find_leaves(rows).paths.is_valid(), rows["category_path"].is_valid())


def _outcomes(kind: str, before: pa.ChunkedArray, after: pa.ChunkedArray, lost: pa.Table) -> Counter[str]:
    """Count the rows by what became of them, and those without a certain place by reason too.

    Args:
        kind: The name of the counts.
        before: (rows,) bool: whether there was something to migrate.
        after: (rows,) bool: whether it has a place.
        lost: `UNDETERMINED`.
    """
    counts = Counter(
        {
            kind: len(before),
            f"{kind}_migrated": pc.sum(after).as_py() or 0,
            f"{kind}_undetermined": len(lost),
            f"{kind}_without_path": len(before) - (pc.sum(before).as_py() or 0),
        }
    )
    for reason in pc.value_counts(lost["reason"]).to_pylist():
        counts[f"{kind}:{reason['values']}"] += reason["counts"]
    return counts


def _kinds(tables: Sequence[_Table]) -> list[str]:
    """Return what is counted: rows of each table with predictions, and labels."""
    return [table.name for table in tables if table.predicted] + ["labels"]


def _audit(output: str, rows: Mapping[str, int], tables: Sequence[_Table], counts: Counter[str]) -> None:
    """Hold what was written against what was read, and the outcomes against the rows.

    Raises:
        AuditError: naming the table and both numbers.
    """
    lists = {RESCORE: counts["products_undetermined"], RELABEL: counts["labels_undetermined"]}
    for folder, expected in {**rows, **lists}.items():
        written = table_rows(storage.join(output, folder))
        if written != expected:
            raise AuditError(f"{output}/{folder} has {written} rows; expected {expected}")
    for what in _kinds(tables):
        outcomes = sum(counts[f"{what}_{outcome}"] for outcome in OUTCOMES)
        if outcomes != counts[what]:
            raise AuditError(f"{output}: {counts[what]} {what} came to {outcomes} outcomes")
