"""Settled products: all rows of some products joined, given a split, and written to the tables."""

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, list_offsets, numbered
from atlas_ray.catalog.joining import in_order, join_row
from atlas_ray.catalog.merging import merge, with_labels
from atlas_ray.catalog.parts import Place
from atlas_ray.catalog.sides import Sides, known_rows
from atlas_ray.catalog.table_reader import CORRECTED, KNOWN, PICTURE, PRODUCT, REFUSED, ROW, ROWS
from atlas_ray.errors import RowError
from atlas_ray.io import storage
from atlas_ray.schemas import IMAGES, PRODUCTS, QUARANTINE, image_ids, path_counts, quarantine_row
from atlas_ray.taxonomy import CategoryPath

Refused = tuple[Place, str | None, RowError]
"""A row that was refused: its place, its product's id as far as it is known, and why."""
NEWEST = 2**31 - 1
"""The number, among earlier catalogues, of the one that is updated."""
PART_ROWS = 50_000
"""The number of products in a file."""
TEXTS = ("title", "description")
"""Fields of which a product without a picture needs one."""


@dataclass
class Tally:
    """Counts of settled products, of one partition or of several."""

    products: int = 0
    said: int = 0
    """The number of products that the source names, and that are there."""
    images: int = 0
    joined: int = 0
    """The number of rows that add to a product of an earlier row."""
    deleted: int = 0
    """The number of rows that say that a product is no longer there."""
    changes: Counter[str] = field(default_factory=Counter)
    """Counts of products of an update: added, changed, same, absent (from the source, and kept), removed."""
    kept_first: Counter[str] = field(default_factory=Counter)
    """Counts of joined rows by the field of which the first value was kept."""
    without_picture: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    """Counts of quarantined rows by error code."""
    examples: dict[str, tuple[Place, str]] = field(default_factory=dict)
    """The first place and message of each error code."""
    labels: Counter[CategoryPath] = field(default_factory=Counter)
    """Counts of labelled products by category path."""
    paths: Counter[CategoryPath] = field(default_factory=Counter)
    """The same by each of their category paths, of which a product may have several."""
    trained: Counter[CategoryPath] = field(default_factory=Counter)
    """The same of those in train."""
    splits: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)
    """Counts as in `atlas_ray.catalog.sides.Sides.counts`."""
    written: Counter[str] = field(default_factory=Counter)
    """Counts of written rows by table."""

    def merge(self, other: "Tally") -> None:
        """Add the counts of another partition."""
        for name, own in vars(self).items():
            if isinstance(own, Counter):
                own.update(getattr(other, name))
            elif isinstance(own, int):
                setattr(self, name, own + getattr(other, name))
        for code, example in other.examples.items():
            self.examples[code] = min(self.examples.get(code, example), example)


@dataclass(frozen=True)
class Settler:
    """What turns all rows of some products into rows of the tables, and writes them."""

    source: str
    """The source, for messages."""
    word: str
    """What the rows' numbers count."""
    output: str
    sides: Sides
    lines_before: Sequence[int] = ()
    """The lines of the file before each part of the source."""
    update: bool = False
    """Whether the rows of a catalogue are among those that are settled, which the source updates."""
    full: bool = False
    """Whether the source is the whole catalogue, so that a product which it does not name is removed."""

    def settle(self, rows: pa.Table, key: str) -> Tally:
        """Settle some products, given all their rows (`ROWS`), in any order.

        The key names their files: no other products may have it.
        """
        tally = Tally()
        if not len(rows):
            return tally
        kind = rows["kind"].to_numpy()
        of_kind = functools.partial(_of_kind, rows, kind)
        before = of_kind(PRODUCT)
        said, gone = _deleted(of_kind(ROW), tally)
        said, nothing = _with_anything(said, before)
        reason = RowError("missing_images", "the row names no picture, and its product has no text")
        refused = [
            (*self._named(row), RowError(row["error_code"], row["message"])) for row in of_kind(REFUSED).to_pylist()
        ]
        refused += [(*self._named(row), reason) for row in nothing.to_pylist()]
        several = _are_several(said)
        joined, more = self._join(said.filter(pa.array(several)), tally)
        products = pa.concat_tables([_one_row_each(said.filter(pa.array(~several))), joined])
        products = products.sort_by([("part", "ascending"), ("number", "ascending")])
        products = products.select(PRODUCTS.names)
        tally.said = len(products)
        corrected = of_kind(CORRECTED)
        products = with_labels(products, corrected)  # before they are compared: a person's label is no change
        if self.update:
            named = pa.array({product for _, product, _ in refused + more if product}, pa.string())
            products = merge(
                products, before.select(PRODUCTS.names), gone, named, full=self.full, changes=tally.changes
            )
            products = with_labels(products, corrected)
        earlier = of_kind(KNOWN).select(["product_id", "split", "part"])
        if len(before):
            earlier = pa.concat_tables([earlier, known_rows(before, NEWEST).select(earlier.column_names)])
        splits = self.sides.settle(products, earlier, tally.origins)
        products = products.set_column(products.column_names.index("split"), "split", splits)
        products = pa.table([products[name] for name in PRODUCTS.names], schema=PRODUCTS)
        _count(products, tally)
        self._write_products(products.combine_chunks(), of_kind(PICTURE), key, tally)
        self._write_refused(refused + more, key, tally)
        return tally

    def _named(self, row: Mapping[str, Any]) -> tuple[Place, str | None]:
        return Place(row["part"], row["number"], self.word, row["name"] or ""), row["product_id"] or None

    def _join(self, rows: pa.Table, tally: Tally) -> tuple[pa.Table, list[Refused]]:
        """Join the rows of products that have several."""
        rows = rows.sort_by([("product_id", "ascending"), ("part", "ascending"), ("number", "ascending")])
        products: list[dict[str, Any]] = []
        refused: list[Refused] = []
        for row in rows.to_pylist():
            position = inf if row["image_position"] is None else row["image_position"]
            row["image_uris"] = dict.fromkeys(row["image_uris"], position)
            if not products or products[-1]["product_id"] != row["product_id"]:
                products.append(row)
                continue
            try:
                tally.kept_first.update(join_row(products[-1], {name: row[name] for name in PRODUCTS.names}))
                tally.joined += 1
            except RowError as error:
                refused.append((*self._named(row), error))
        for product in products:
            product["image_uris"] = in_order(product["image_uris"])
        return pa.Table.from_pylist(products, schema=ROWS), refused

    def _write_products(self, products: pa.Table, before: pa.Table, key: str, tally: Tally) -> None:
        for number, start in enumerate(range(0, len(products), PART_ROWS)):
            part = products.slice(start, PART_ROWS)
            images = _images(part, before)
            tally.images += len(images)
            tally.without_picture += int(pc.sum(pc.equal(pc.list_value_length(part["image_uris"]), 0)).as_py() or 0)
            self._write("images", images, key, number, tally)
            self._write("products", part, key, number, tally)

    def _write_refused(self, refused: Sequence[Refused], key: str, tally: Tally) -> None:
        rows = []
        for place, product_id, error in sorted(refused, key=lambda one: one[0]):
            if self.lines_before:
                place = place.after(self.lines_before[place.part])
            tally.quarantined[error.code] += 1
            tally.examples[error.code] = min(
                tally.examples.get(error.code, (place, error.message)), (place, error.message)
            )
            message = f"{self.source}, {place}: {error.message}"
            rows.append(quarantine_row("import", error.code, message, product_id=product_id))
        for number, start in enumerate(range(0, len(rows), PART_ROWS)):
            part = pa.Table.from_pylist(rows[start : start + PART_ROWS], schema=QUARANTINE)
            self._write("quarantine", part, key, number, tally)

    def _write(self, name: str, table: pa.Table, key: str, number: int, tally: Tally) -> None:
        """Write a file whose name follows from its products, so that a repeated task replaces it."""
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        uri = storage.join(self.output, name, f"part-{number:05d}-{digest}.parquet")
        storage.write_table(uri, table, row_group_size=10_000)
        tally.written[name] += len(table)


def _of_kind(rows: pa.Table, kinds: Array, kind: int) -> pa.Table:
    return rows.filter(pa.array(kinds == kind))


def _deleted(rows: pa.Table, tally: Tally) -> tuple[pa.Table, pa.Array]:
    """Return the rows of products that are there, and the ids of those that the source says are not.

    A later row may bring a product back that an earlier one deletes, as in a log of changes.
    """
    deleted = rows["deleted"].fill_null(False).to_numpy()
    if not deleted.any():
        return rows, pa.array([], pa.string())
    names, owner = numbered(rows["product_id"])
    place = np.empty(len(rows), np.int64)
    place[np.lexsort((rows["number"].to_numpy(), rows["part"].to_numpy()))] = np.arange(len(rows))
    last = np.full(len(names), -1)
    np.maximum.at(last, owner[deleted], place[deleted])
    there = place > last[owner]
    tally.deleted = int((~there).sum())
    back = np.isin(owner, owner[there])
    return rows.filter(pa.array(there)), pc.unique(rows["product_id"].filter(pa.array(~there & ~back)))


def _with_anything(rows: pa.Table, before: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Part the rows of products that have a picture or a text, or are known already, from those that have nothing."""
    _, owner = numbered(rows["product_id"])
    there = pc.is_in(rows["product_id"], before["product_id"].combine_chunks())
    there = pc.or_(there, pc.greater(pc.list_value_length(rows["image_uris"]), 0).fill_null(False))
    for name in TEXTS:
        there = pc.or_(there, rows[name].is_valid())
    good = np.bincount(owner, weights=there.to_numpy())[owner] > 0 if len(rows) else np.zeros(0, bool)
    return rows.filter(pa.array(good)), rows.filter(pa.array(~good))


def _are_several(rows: pa.Table) -> Array:
    """Return which rows have a product of several, (rows,)."""
    _, owner = numbered(rows["product_id"])
    return np.bincount(owner)[owner] > 1 if len(rows) else np.zeros(0, bool)


def _one_row_each(rows: pa.Table) -> pa.Table:
    """Return rows that are a product each; a picture that is named twice stands once."""
    lists = rows["image_uris"].combine_chunks()
    owner = pc.list_parent_indices(lists).to_numpy()
    uris = pc.list_flatten(lists)
    if not len(owner) or np.bincount(owner).max() <= 2:  # the usual shop: neighbours are all there is to compare
        again = pc.equal(uris[1:], uris[:-1]).to_numpy(zero_copy_only=False) & (owner[1:] == owner[:-1])
        if not again.any():
            return rows
    keys = owner * (len(uris) + 1) + uris.dictionary_encode().indices.to_numpy()
    _, first = np.unique(keys, return_index=True)
    if len(first) == len(keys):
        return rows
    first.sort()
    lengths = np.bincount(owner[first], minlength=len(rows))
    lists = pa.ListArray.from_arrays(list_offsets(lengths), uris.take(pa.array(first)))
    return rows.set_column(rows.column_names.index("image_uris"), "image_uris", lists)


def _count(products: pa.Table, tally: Tally) -> None:
    tally.products += len(products)
    labelled = products.filter(products["category_path"].is_valid())
    trained = labelled.filter(pc.equal(labelled["split"], "train").fill_null(False))
    several = labelled["category_paths"]
    for paths, counts in (
        (labelled["category_path"], tally.labels),
        (labelled["category_path"].filter(several.is_null()), tally.paths),
        (pc.list_flatten(several), tally.paths),
        (trained["category_path"], tally.trained),
    ):
        counts.update(path_counts(paths))
    for row in pc.value_counts(labelled["split"].fill_null("none").combine_chunks()).to_pylist():
        tally.splits[row["values"]] += row["counts"]


def _images(products: pa.Table, before: pa.Table) -> pa.Table:
    """Return the rows of the images table of some products; of pictures that were known with what was known."""
    uris = products["image_uris"].combine_chunks()
    owners = products["product_id"].combine_chunks().take(pc.list_parent_indices(uris))
    pictures = pc.list_flatten(uris)
    ids = pa.array(image_ids(owners.to_pylist(), pictures.to_pylist()))
    known = before.select(IMAGES.names[3:]).take(pc.index_in(ids, _ids_of(before)))
    return pa.table([ids, owners, pictures, *known.columns], schema=IMAGES)


def _ids_of(pictures: pa.Table) -> pa.Array:
    """Return the ids of pictures of which product and URI are given."""
    return pa.array(image_ids(pictures["product_id"].to_pylist(), pictures["image_uri"].to_pylist()))
