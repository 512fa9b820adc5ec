"""Import: another layout's catalogue to the products and images tables, streaming."""

import os
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from atlas_ray import storage
from atlas_ray.catalog.rows import RowReader
from atlas_ray.catalog.sides import Sides, open_sides
from atlas_ray.catalog.sources import FORMATS, RawRow, Source, guess_format
from atlas_ray.catalog.split import parse_shares
from atlas_ray.errors import CatalogError, ConfigError, OutputError, RowError
from atlas_ray.records import IMAGES, PRODUCTS, QUARANTINE, image_ids, quarantine_row
from atlas_ray.streaming.account import write_run
from atlas_ray.taxonomy import CategoryPath, Taxonomy, format_path

PART_ROWS = 50_000
FEW_PRODUCTS = 20


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What to import and how."""

    source: str
    """An Atlas JSON, a CSV, a JSON Lines file, or a folder or S3 prefix of category folders."""
    output: str
    """Where the tables go; a folder that holds none yet."""
    format: str = "auto"
    """atlas-json, json, csv, jsonl, folder, or auto."""
    encoding: str = "auto"
    """Of a text file; auto tells UTF-8 and UTF-16, and assumes an older one where the file is neither."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our field -> the source's column."""
    image_base: str = ""
    """The folder that relative picture names are below; the source's own where empty."""
    taxonomy: Taxonomy | None = None
    """Labels outside it are quarantined; where none is given it is made from the labels."""
    split: str | None = None
    """Shares of train, val and test for labelled products that have no split yet; 65/5/30, or those of `previous`."""
    seed: int | None = None
    """Of the split; 0, or that of `previous`."""
    split_exact: bool = False
    """Whether each category path is split in exact shares, by the order of the rows; else a product's id decides."""
    previous: tuple[str, ...] = ()
    """Earlier catalogues, the newest last: their products keep the split that they have there."""
    store: str | None = None
    """The store of rows that name none."""
    path_separator: str = ">"
    """Between the names of a category path written as text."""

    def __post_init__(self) -> None:
        """Refuse unknown formats, fields and shares."""
        if self.format not in ("auto", *FORMATS):
            raise ConfigError(f"format {self.format!r} is unknown; expected auto, {', '.join(FORMATS)}")
        unknown = [name for name in self.columns if name not in PRODUCTS.names]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is no field of a product; expected one of {', '.join(PRODUCTS.names)}")
        if self.split is not None:
            parse_shares(self.split)


@dataclass
class ImportReport:
    """What an import did."""

    output: str
    products: int = 0
    images: int = 0
    labelled: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    """By error code."""
    splits: Counter[str] = field(default_factory=Counter)
    """Labelled products by split; `none` are those that an earlier catalogue keeps out of all of them."""
    split_origins: Counter[str] = field(default_factory=Counter)
    """As `atlas_ray.catalog.sides.Sides.counts`."""
    untrained: list[tuple[CategoryPath, int]] = field(default_factory=list)
    """Category paths of which no product is in train, those of most products first."""
    taxonomy: Taxonomy | None = None
    few: list[tuple[CategoryPath, int]] = field(default_factory=list)
    """Leaves with under 20 products, fewest first."""
    not_leaves: list[tuple[CategoryPath, int]] = field(default_factory=list)
    """Labels that are inner nodes of the taxonomy made from all labels."""


def import_catalog(config: ImportConfig) -> ImportReport:
    """Write products, images, quarantine, taxonomy.json and run.json below `config.output`.

    Memory does not grow with the catalogue: rows stream, ids already seen lie in a temporary
    database on disk, and the split keeps one count a category path.

    Raises:
        CatalogError: where the source as a whole cannot be read, or holds no product.
        OutputError: where the output already holds a catalogue.
    """
    began = time.time()
    output = storage.absolute(config.output)
    if storage.exists(storage.join(output, "run.json")) or storage.files(storage.join(output, "products")):
        raise OutputError(f"{output} already holds a catalogue; import into a new folder, or delete it")
    source = storage.absolute(config.source)
    kind = config.format if config.format != "auto" else guess_format(source, config.encoding)
    base = config.image_base or (source if kind == "folder" else source.rpartition("/")[0])
    reader = RowReader(
        image_base=storage.absolute(base) if base else "",
        columns=config.columns,
        taxonomy=config.taxonomy,
        store=config.store,
        path_separator=config.path_separator,
    )
    report = ImportReport(output)
    labels: Counter[CategoryPath] = Counter()
    previous = tuple(map(storage.absolute, config.previous))
    opened = open_sides(config.split, config.seed, exact=config.split_exact, previous=previous)
    with opened as sides, _Tables(output) as tables, _Seen() as seen:
        for raw in Source(source, kind, reader.known, encoding=config.encoding):
            if raw.blank:
                continue
            try:
                product = _read(raw, reader, seen)
            except RowError as error:
                report.quarantined[error.code] += 1
                place = f"{source}, {raw.place}: {error.message}"
                product_id = str(raw.fields.get("product_id") or "")[:200] or None
                tables.add("quarantine", quarantine_row("import", error.code, place, product_id=product_id))
                continue
            sides.settle(product)
            if product["category_path"]:
                labels[tuple(product["category_path"])] += 1
                report.splits[product["split"] or "none"] += 1
            report.products += 1
            report.images += len(product["image_uris"])
            tables.add("products", product)
    if not report.products:
        worst = ", ".join(f"{code} {count}" for code, count in report.quarantined.most_common(3))
        raise CatalogError(f"{source}: not one row could be used ({worst}); see {output}/quarantine")
    report.labelled = labels.total()
    report.split_origins, report.untrained = sides.counts, sides.untrained
    _finish(config, report, labels, sides, kind, source, began)
    return report


def _read(raw: RawRow, reader: RowReader, seen: "_Seen") -> dict[str, Any]:
    if raw.error:
        raise raw.error
    product = reader.product(raw.fields)
    if not seen.add(product["product_id"]):
        raise RowError("duplicate_product", f"the product id {product['product_id']!r} stood already")
    return product


def _finish(
    config: ImportConfig,
    report: ImportReport,
    labels: Counter[CategoryPath],
    sides: Sides,
    kind: str,
    source: str,
    began: float,
) -> None:
    sides.rule.write(report.output)
    report.taxonomy = config.taxonomy
    if report.taxonomy is None and labels:
        name = source.rstrip("/").rpartition("/")[2].rpartition(".")[0] or "catalog"
        report.taxonomy = Taxonomy(labels, name=name)
    if report.taxonomy is not None:
        document = report.taxonomy.to_json().encode()
        storage.write_bytes(storage.join(report.output, "taxonomy.json"), document)
        leaves = report.taxonomy.leaf_set
        report.not_leaves = [(path, count) for path, count in labels.items() if path not in leaves]
        counts = [(path, labels[path]) for path in report.taxonomy.leaves if labels[path] < FEW_PRODUCTS]
        report.few = sorted(counts, key=lambda item: item[1])
    fields = {
        "config": {
            "source": source,
            "format": kind,
            "columns": dict(config.columns),
            "split": sides.rule.shares,
            "seed": sides.rule.seed,
            "split_exact": config.split_exact,
            "previous": list(sides.rule.previous),
            "store": config.store,
        },
        "taxonomy_id": report.taxonomy.id if report.taxonomy else None,
        "counts": {
            "products": report.products,
            "images": report.images,
            "labelled": report.labelled,
            "splits": dict(report.splits),
            "split_origins": dict(report.split_origins),
            "quarantined": dict(report.quarantined),
        },
        "few_products": {format_path(path): count for path, count in report.few},
        "not_leaves": {format_path(path): count for path, count in report.not_leaves},
        "untrained": {format_path(path): count for path, count in report.untrained},
    }
    write_run(report.output, "import", began, fields)


class _Tables:
    """Collects rows and writes them as Parquet files of `PART_ROWS` products."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._rows: dict[str, list[dict[str, Any]]] = {"products": [], "quarantine": []}
        self._parts: Counter[str] = Counter()

    def add(self, table: str, row: dict[str, Any]) -> None:
        self._rows[table].append(row)
        if len(self._rows[table]) >= PART_ROWS:
            self._flush(table)

    def _flush(self, table: str) -> None:
        rows = self._rows[table]
        if not rows:
            return
        self._rows[table] = []
        if table == "quarantine":
            self._write(table, pa.Table.from_pylist(rows, schema=QUARANTINE))
            return
        products = pa.Table.from_pylist(rows, schema=PRODUCTS)
        uris = products["image_uris"].combine_chunks()
        owners = products["product_id"].combine_chunks().take(uris.value_parent_indices())
        pictures = uris.flatten()
        count = len(pictures)
        images = pa.table(
            [
                pa.array(image_ids(owners.to_pylist(), pictures.to_pylist())),
                owners,
                pictures,
                pa.nulls(count, pa.string()),
                pa.nulls(count, pa.int32()),
                pa.nulls(count, pa.int32()),
            ],
            schema=IMAGES,
        )
        self._write("images", images)
        self._write("products", products)

    def _write(self, name: str, table: pa.Table) -> None:
        folder = storage.join(self._output, name)
        storage.make_folder(folder)
        place = storage.locate(storage.join(folder, f"part-{self._parts[name]:05d}.parquet"))
        self._parts[name] += 1
        pq.write_table(table, place.path, filesystem=place.filesystem, row_group_size=10_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for table in self._rows:
                self._flush(table)


class _Seen:
    """The product ids so far, on disk."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="atlas-ray-import-")
        self._ids = sqlite3.connect(os.path.join(self._folder.name, "ids.sqlite"), isolation_level=None)
        self._ids.execute("PRAGMA journal_mode=OFF")
        self._ids.execute("PRAGMA synchronous=OFF")
        self._ids.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._ids.execute("BEGIN")
        return self

    def add(self, product_id: str) -> bool:
        """Remember an id; tell whether it is new."""
        return self._ids.execute("INSERT OR IGNORE INTO ids VALUES (?)", (product_id,)).rowcount == 1

    def __exit__(self, *_: object) -> None:
        self._ids.close()
        self._folder.cleanup()
