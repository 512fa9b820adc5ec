"""Selections from a catalogue: a new catalogue of the products that a list names."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.catalog.copy import check_unused, copy_catalog
from atlas_ray.catalog.product_list import read_list
from atlas_ray.errors import CatalogError, RowError
from atlas_ray.formats.tables import current
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.runs.run_record import write_run
from atlas_ray.runtime.tables import open_catalog, write_quarantine
from atlas_ray.schemas import quarantine_row
from atlas_ray.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class SelectConfig(Settings):
    """A selection of products from a catalogue."""

    catalog: str = setting("catalogue: its products and images tables")
    products: str = setting(
        "list of products: a .csv or .parquet with product_id, or a folder of Parquet such as `rescore` of a migration"
    )
    output: str = setting("folder of the new catalogue; it must not hold a catalogue yet")
    max_quarantine_fraction: float = setting(
        "share of quarantined rows above which the command exits with 3", 0.05, low=0, high=1
    )


@dataclass(frozen=True)
class SelectReport:
    """The numbers of selected and refused products."""

    output: str
    listed: int
    """Rows of the list, but for those that repeat a product; and the catalogue's rows that repeat one."""
    products: int
    images: int
    quarantined: Counter[str]
    """Counts of quarantined rows of the list by error code."""

    @property
    def quarantined_fraction(self) -> float:
        """The share of the list that names no product of the catalogue."""
        return self.quarantined.total() / max(self.listed, 1)


@holding("select", "config.output")
def select(config: SelectConfig) -> SelectReport:
    """Write a catalogue of the listed products alone, with all that the tables say of them.

    What the list has and the catalogue has not is in `quarantine/`, with the code unknown_product, missing_product_id,
    bad_row or bad_encoding; so is each further row of a product, as duplicate_product. The pictures stay where they
    are. Memory grows with the list, not with the catalogue.

    Raises:
        CatalogError: if the catalogue has no such tables, or the list cannot be read or names none of its products.
        OutputError: if the output holds a catalogue already.
    """
    began = time.time()
    catalog, output = current(storage.absolute(config.catalog)), storage.absolute(config.output)
    check_unused(output)
    tables = open_catalog(catalog, others=True, may_be_empty=True)
    wanted, quarantine = _read(config.products)
    selected = _ListedRows(list(wanted))
    copy_catalog(tables, output, selected.products, change_images=selected.images)
    if not selected.counts["products"]:
        for name in ("products", "images"):
            storage.delete_folder(storage.join(output, name))
        raise CatalogError(f"{config.products}: none of its {len(wanted)} products is in the catalogue {catalog}")
    for (product_id, place), seen in zip(wanted.items(), selected.seen, strict=True):
        if not seen:
            message = f"{config.products}, {place}: the catalogue has no product {product_id[:200]!r}"
            quarantine.append(quarantine_row("select", "unknown_product", message, product_id=product_id[:200]))
    names = list(wanted)
    for at, more in sorted(selected.repeated.items()):
        product_id = names[at][:200]
        message = f"{catalog}: product {product_id!r} has {more + 1} rows in the products table; the first is kept"
        quarantine += [quarantine_row("select", "duplicate_product", message, product_id=product_id)] * more
    write_quarantine(output, quarantine)
    codes = Counter(str(row["error_code"]) for row in quarantine)
    listed = selected.counts["products"] + codes.total()
    report = SelectReport(output, listed, selected.counts["products"], selected.counts["images"], codes)
    counts = {"listed": listed, **selected.counts, "quarantined": dict(codes)}
    fields = {
        "config": asdict(config) | {"catalog": catalog},
        "counts": counts,
        "unusable_rows": tables.write_unusable(output, "select"),
        "unreadable_values": tables.account(),
    }
    write_run(output, "select", began, fields)
    return report


def _read(source: str) -> tuple[dict[str, str], list[dict[str, object]]]:
    """Return the place of each product in a list, and the rows that name none."""
    places: dict[str, str] = {}
    quarantine = []
    for row in read_list(source, ["product_id"]):
        error = row.error
        if error is None and not row.fields["product_id"]:
            error = RowError("missing_product_id", "the row has no product id")
        if error:
            quarantine.append(quarantine_row("select", error.code, f"{source}, {row.place}: {error.message}"))
        else:
            places.setdefault(row.fields["product_id"], row.place)
    if not places:
        raise CatalogError(f"{source}: no row names a product")
    return places, quarantine


class _ListedRows:
    """Keeps the rows of listed products, of each product the first.

    Attributes:
        seen: (listed,) bool: whether the catalogue has the product.
        counts: Rows kept of each table.
        repeated: How many further rows each product has that was listed and has any, by its place in the list.
    """

    def __init__(self, product_ids: Sequence[str]) -> None:
        self._ids = pa.array(product_ids, pa.string())
        self.seen = np.zeros(len(product_ids), bool)
        self.counts = {"products": 0, "images": 0}
        self.repeated = Counter[int]()

    def products(self, rows: pa.Table) -> pa.Table:
        """Return those rows of the products table that are listed."""
        where = pc.index_in(rows["product_id"], self._ids).combine_chunks()
        listed = np.flatnonzero(where.is_valid().to_numpy(zero_copy_only=False))
        place = where.drop_null().to_numpy()
        first = np.zeros(len(place), bool)
        first[np.unique(place, return_index=True)[1]] = True
        first &= ~self.seen[place]
        self.seen[place] = True
        self.repeated.update(place[~first].tolist())
        return self._kept(rows.take(pa.array(listed[first])), "products")

    def images(self, rows: pa.Table) -> pa.Table:
        """Return those rows of the images table whose product is listed."""
        return self._kept(rows.filter(pc.is_in(rows["product_id"], self._ids)), "images")

    def _kept(self, rows: pa.Table, name: str) -> pa.Table:
        self.counts[name] += len(rows)
        return rows
