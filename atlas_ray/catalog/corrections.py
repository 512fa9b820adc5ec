"""Corrections made by a person, applied as labels in a copy of a catalogue."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.catalog.copy import check_unused, copy_catalog
from atlas_ray.catalog.parts import RawRow
from atlas_ray.catalog.product_list import read_list
from atlas_ray.catalog.split import SplitRule
from atlas_ray.errors import CatalogError, RowError, TaxonomyError
from atlas_ray.formats.tables import current
from atlas_ray.formats.values import describe, is_missing, name_value
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.runs.run_record import write_run
from atlas_ray.runtime.tables import CORRECTIONS, open_catalog, write_quarantine
from atlas_ray.schemas import CATEGORY_PATH, CORRECTED_LABELS, path_keys, quarantine_row
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy import CategoryPath, Taxonomy, format_path, parse_path, read_taxonomy
from atlas_ray.taxonomy.lookup import LeafLookup
from atlas_ray.taxonomy.tree import check_path

COLUMNS = ("product_id", "corrected_category_path")
SHOWN = 10
"""The number of refused rows that the report shows."""


@dataclass(frozen=True, kw_only=True)
class RelabelConfig(Settings):
    """The catalogue and the corrections to apply to it."""

    catalog: str = setting("catalogue: its products and images tables")
    corrections: str = setting(
        "corrections: a .csv or .parquet with product_id and corrected_category_path, as `review` writes"
    )
    output: str = setting("folder of the corrected copy; it must not hold a catalogue yet")
    taxonomy: str | None = setting(
        "taxonomy of the allowed paths and of the copy; by default the catalogue's own", None
    )
    max_quarantine_fraction: float = setting(
        "share of quarantined corrections above which the command exits with 3", 0.05, low=0, high=1
    )


@dataclass(frozen=True)
class RelabelReport:
    """The outcome of applying corrections."""

    output: str
    corrections: int
    """The number of rows with a corrected path."""
    empty: int
    """The number of rows without a corrected path."""
    outcomes: Counter[str]
    """Products counted as `labelled` for the first time, `relabelled`, or `confirmed` in their label."""
    splits: Counter[str]
    """Counts of these products by their split; `none` counts those that are kept out of all splits."""
    quarantined: Counter[str]
    """Counts of quarantined rows by error code."""
    refused: list[str]
    """Why each of the first quarantined rows was refused, with the row's place."""

    @property
    def quarantined_fraction(self) -> float:
        """The share of the corrections that were quarantined."""
        return self.quarantined.total() / max(self.corrections, 1)


@holding("relabel", "config.output")
def relabel(config: RelabelConfig) -> RelabelReport:
    """Write a copy of a catalogue in which corrected products have their correction as label.

    A split stays as it is. A product that had neither label nor split gets the one that its id falls in, as if it had
    been imported with the label; one with a label and no split is kept out of all of them, since another product on
    another side shows its picture, and stays so. What cannot be taken over is in `quarantine/`, with the code
    missing_product_id, unknown_product, bad_category_path, unknown_category, bad_row or bad_encoding.
    Memory grows with the corrections, not with the catalogue.

    Raises:
        CatalogError: if the catalogue has no such tables or no taxonomy, or the file no correction, or two
            for the same product.
        OutputError: if the output holds a catalogue already.
    """
    began = time.time()
    catalog, output = current(storage.absolute(config.catalog)), storage.absolute(config.output)
    check_unused(output)
    tables = open_catalog(catalog, needed=("category_path", "split"), others=True, may_be_empty=True)
    taxonomy = _taxonomy(config, catalog)
    corrections = Corrections.read(config.corrections, taxonomy)
    applied = _Applied(corrections.paths, SplitRule.of(catalog))
    copy_catalog(tables, output, applied.change)
    corrections.miss(applied.seen)
    write_corrected(catalog, output, corrections.paths)
    if config.taxonomy:
        storage.write_bytes(storage.join(output, "taxonomy.json"), taxonomy.to_json().encode())
    quarantined = Counter(str(row["error_code"]) for row in corrections.quarantine)
    report = RelabelReport(
        output,
        corrections.count,
        corrections.empty,
        applied.outcomes,
        applied.splits,
        quarantined,
        [str(row["message"]) for row in corrections.quarantine[:SHOWN]],
    )
    write_quarantine(output, corrections.quarantine)
    unusable = tables.write_unusable(output, "relabel")
    counts = {
        "corrections": report.corrections,
        "empty": report.empty,
        **report.outcomes,
        "splits": dict(report.splits),
        "quarantined": dict(report.quarantined),
    }
    fields = {
        "config": asdict(config) | {"catalog": catalog},
        "taxonomy_id": taxonomy.id,
        "counts": counts,
        "unusable_rows": unusable,
        "unreadable_values": tables.account(),
    }
    write_run(output, "relabel", began, fields)
    return report


def write_corrected(catalog: str, output: str, paths: Mapping[str, CategoryPath]) -> None:
    """Keep corrected labels, with those of earlier corrections, so that an update of the catalogue keeps them, too."""
    uri = storage.join(catalog, CORRECTIONS)
    before = storage.read_table(uri) if storage.exists(uri) else CORRECTED_LABELS.empty_table()
    before = before.filter(pc.invert(pc.is_in(before["product_id"], pa.array(paths.keys(), pa.string()))))
    after = pa.table([list(paths), list(map(list, paths.values()))], schema=CORRECTED_LABELS)
    storage.write_table(storage.join(output, CORRECTIONS), pa.concat_tables([before, after]))


def _taxonomy(config: RelabelConfig, catalog: str) -> Taxonomy:
    default = storage.join(catalog, "taxonomy.json")
    if config.taxonomy is None and not storage.exists(default):
        raise CatalogError(f"{catalog} holds no taxonomy.json (no product is labelled); name one with --taxonomy")
    return read_taxonomy(config.taxonomy or default)


class Corrections:
    """The corrections of a file, and why others of its rows are none.

    Attributes:
        paths: By product.
        count: Rows that say something.
        empty: Rows that do not.
        quarantine: Rows that cannot be used.
    """

    def __init__(self, source: str, taxonomy: Taxonomy) -> None:
        """Begin without a correction of a file to leaves of a taxonomy."""
        self.paths: dict[str, CategoryPath] = {}
        self.count = self.empty = 0
        self.quarantine: list[dict[str, object]] = []
        self._places: dict[str, str] = {}
        self._taxonomy = taxonomy
        self._leaves = LeafLookup(taxonomy)
        self._source = source

    @classmethod
    def read(cls, source: str, taxonomy: Taxonomy) -> Self:
        """Read a file of corrections.

        Raises:
            CatalogError: if no row says something, or two of them are of one product and differ.
        """
        corrections = cls(source, taxonomy)
        for row in read_list(source, COLUMNS):
            corrections.take(row)
        if not corrections.count:
            raise CatalogError(f"{source}: no row has a corrected_category_path; fill in that column first")
        return corrections

    def take(self, row: RawRow) -> None:
        """Take in a row, whose path is text or a list of names."""
        product_id, written = (row.fields.get(name) for name in COLUMNS)
        if row.error is None and (is_missing(written) or written == []):
            self.empty += 1
            return
        self.count += 1
        try:
            if row.error:
                raise row.error
            if not product_id:
                raise RowError("missing_product_id", "the row has no product id")
            path = self._path(written)
        except RowError as error:
            self._refuse(error, row.place, product_id)
            return
        before = self.paths.setdefault(product_id, path)
        if before != path:
            raise CatalogError(
                f"{self._source}: the product {product_id!r} is {format_path(before)!r} in {self._places[product_id]} "
                f"and {format_path(path)!r} in {row.place}; leave one of them"
            )
        self._places.setdefault(product_id, row.place)

    def miss(self, seen: Iterable[bool]) -> None:
        """Refuse corrections of products that were not seen; there is one value for each of `paths`."""
        for product_id, known in zip(self.paths, seen, strict=True):
            if not known:
                error = RowError("unknown_product", f"the catalogue has no product {product_id[:200]!r}")
                self._refuse(error, self._places[product_id], product_id)

    def _path(self, written: Any) -> CategoryPath:
        """Return the leaf that a correction names; case and separators are a person's own."""
        if not isinstance(written, str | list):
            raise RowError("bad_category_path", f"the path is {describe(written)}; expected text or a list of names")
        path = tuple(name_value(name, "path") for name in ([written] if isinstance(written, str) else written))
        leaf = self._leaves.find(path)
        if leaf is not None:
            return leaf
        try:
            check_path(parse_path(path[0]) if isinstance(written, str) else path)
        except TaxonomyError as error:
            raise RowError("bad_category_path", str(error)[:500]) from None
        close = self._leaves.closest(path)
        hint = f"; did you mean {format_path(close)!r}?" if close else ""
        raise RowError(
            "unknown_category",
            f"{format_path(path)[:400]!r} is no leaf of the taxonomy {self._taxonomy.name!r}{hint}",
        )

    def _refuse(self, error: RowError, place: str, product_id: Any) -> None:
        message = f"{self._source}, {place}: {error.message}"
        known = product_id[:200] if isinstance(product_id, str) and product_id else None
        self.quarantine.append(quarantine_row("relabel", error.code, message, product_id=known))


class _Applied:
    """Changes products by their corrections, and counts what it does.

    Attributes:
        seen: (corrections,) bool: whose product there was.
        outcomes: As in `RelabelReport`.
        splits: As in `RelabelReport`.
    """

    def __init__(self, paths: dict[str, CategoryPath], rule: SplitRule) -> None:
        self._rule = rule
        self._ids = pa.array(paths.keys(), pa.string())
        self._paths = pa.array([list(path) for path in paths.values()], CATEGORY_PATH)
        self.seen = np.zeros(len(paths), bool)
        self.outcomes, self.splits = Counter[str](), Counter[str]()

    def change(self, products: pa.Table) -> pa.Table:
        """Return a block of the products table with the corrections in it."""
        products = products.combine_chunks()
        position = pc.index_in(products["product_id"], self._ids).combine_chunks()
        corrected = position.is_valid()
        rows = position.drop_null().to_numpy()
        if not len(rows):
            return products
        self.seen[rows] = True
        before = path_keys(products["category_path"]).filter(corrected)
        after = path_keys(self._paths.take(pa.array(rows)))
        same = pc.equal(before, after)
        self.outcomes["labelled"] += same.null_count
        self.outcomes["confirmed"] += pc.sum(same).as_py() or 0
        self.outcomes["relabelled"] += len(same) - same.null_count - (pc.sum(same).as_py() or 0)
        path = pc.if_else(corrected, self._paths.take(position), products["category_path"])
        unlabelled = products["category_path"].is_null().combine_chunks()
        first = pc.and_(corrected, pc.and_(products["split"].is_null().combine_chunks(), unlabelled))
        drawn = [self._rule.side_of(product_id) for product_id in products["product_id"].filter(first).to_pylist()]
        split = pc.replace_with_mask(products["split"], first, pa.array(drawn, pa.string()))
        self.splits.update(split.filter(corrected).fill_null("none").to_pylist())
        for name, column in (("category_path", path), ("split", split)):
            products = products.set_column(products.column_names.index(name), products.field(name), column)
        return products
