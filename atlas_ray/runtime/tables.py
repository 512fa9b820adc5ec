"""The tables of a catalogue, opened and checked before a job starts, and the small tables of a run."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atlas_ray.arrays import Integers
from atlas_ray.errors import CatalogError, tell
from atlas_ray.formats.table_files import parquet_files
from atlas_ray.formats.tables import Table, current, open_table
from atlas_ray.io import storage
from atlas_ray.io.ahead import ahead
from atlas_ray.schemas import IMAGES, PRODUCTS, QUARANTINE, path_counts, quarantine_row
from atlas_ray.taxonomy import CategoryPath

UNUSABLE = "rows-without-key"
"""The name of the quarantine's files about rows without a key."""
QUARANTINE_ROWS = 10_000
PART_ROWS = 100_000
Change = Callable[[pa.Table], pa.Table]

SPLIT = "split.json"
"""The rule by which a catalogue's products get a split (`atlas_ray.catalog.split.SplitRule`)."""
CORRECTIONS = "corrections.parquet"
"""The file in a catalogue that holds the labels which a person corrected."""
DOCUMENTS = ("taxonomy.json", SPLIT, CORRECTIONS)
"""The files of a catalogue beside its tables."""


@dataclass(frozen=True)
class Catalog:
    """The opened tables of a catalogue."""

    uri: str
    images: Table
    products: Table

    @property
    def unusable_rows(self) -> int:
        """The number of rows of both tables without a key."""
        return self.images.unusable_rows + self.products.unusable_rows

    def account(self) -> dict[str, Any]:
        """Return the entries of `run.json` about values that could not be read, by table and column."""
        tables = {"images": self.images, "products": self.products}
        return {
            f"{name}.{column}": asdict(values)
            for name, table in tables.items()
            for column, values in table.unreadable.items()
        }

    def write_unusable(self, output: str, stage: str) -> int:
        """Write the rows without a key to the quarantine of a run; return their number."""
        rows, part = [], 0
        for table in (self.images, self.products):
            for file, number, key, values in table.unusable():
                message = f"row {number} of {file} has no {key}"
                rows.append(quarantine_row(stage, f"missing_{key}", message, **_texts(values)))
                if len(rows) == QUARANTINE_ROWS:
                    write_quarantine(output, rows, f"{UNUSABLE}-{part:05d}")
                    rows, part = [], part + 1
        write_quarantine(output, rows, f"{UNUSABLE}-{part:05d}")
        return self.unusable_rows


def open_catalog(
    catalog: str,
    *,
    products: Sequence[str] | None = None,
    needed: Sequence[str] = (),
    images: Sequence[str] | None = None,
    others: bool = False,
    may_be_empty: bool = False,
) -> Catalog:
    """Open the images and products tables of a catalogue, and check the columns that will be read.

    Lines about rows and values that are left out go to stderr.

    Args:
        catalog: The folder of the catalogue.
        products: The columns to read of the products table, besides `product_id`; None for all.
        needed: Those of them that it must have.
        images: The columns to read of the images table, besides its keys; None for all.
        others: Whether to read columns that are not in the contract, too.
        may_be_empty: Whether there may be no picture, or no images table.

    Raises:
        CatalogError: if a table is missing, damaged or empty, or a column is missing or of another type.
    """
    if not storage.exists(catalog):
        raise CatalogError(f"{catalog}: no such folder; name a catalogue, such as `atlas-ray import` makes")
    catalog = current(catalog)
    keys = ("image_id", "product_id", "image_uri")
    opened = Catalog(
        catalog,
        open_table(
            storage.join(catalog, "images"),
            IMAGES,
            columns=None if images is None else list(dict.fromkeys((*keys, *images))),
            needed=keys[1:],
            others=others,
            foreign=True,
            may_be_missing=may_be_empty,
        ),
        open_table(
            storage.join(catalog, "products"),
            PRODUCTS,
            columns=None if products is None else list(dict.fromkeys(("product_id", *products))),
            needed=("product_id", *needed),
            others=others,
            foreign=True,
        ),
    )
    if not opened.images.all_rows and not may_be_empty:
        raise CatalogError(f"{catalog}: its images table has no row")
    for table in (opened.images, opened.products):
        for line in table.losses:
            tell(line)
    return opened


def forget_unusable(output: str) -> None:
    """Delete the files of `Catalog.write_unusable`, which are written again when a run ends."""
    uris = storage.files(storage.join(output, "quarantine"))
    storage.delete_files(uri for uri in uris if uri.rpartition("/")[2].startswith(UNUSABLE))


def _texts(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {name: keys[name] for name in ("product_id", "image_uri") if keys.get(name)}


def same(rows: pa.Table) -> pa.Table:
    """Return rows unchanged."""
    return rows


def copy_table(table: Table, folder: str, change: Change = same) -> None:
    """Replace the content of a folder by the rows of a table, with a change."""
    storage.delete_folder(folder)
    storage.make_folder(folder)
    empty = table.schema.empty_table()  # a table without rows still needs a file
    for number, batch in enumerate(table.batches(batch_rows=PART_ROWS) if table.rows else [empty]):
        part = change(batch)
        if number and not len(part):
            continue
        storage.write_table(storage.join(folder, f"part-{number:05d}.parquet"), part)


def count_labels(catalog: str, split: str | None = None) -> Counter[CategoryPath]:
    """Count the labelled products of a catalogue, or of one of its splits, by category path.

    Memory grows with the number of paths, not of products.

    Raises:
        CatalogError: if the products table is missing or damaged.
    """
    columns = ["category_path"] + ([] if split is None else ["split"])
    table = open_table(storage.join(catalog, "products"), PRODUCTS, columns=columns, foreign=True)
    counts = Counter[CategoryPath]()
    for batch in table.batches():
        paths = batch["category_path"]
        paths = paths if split is None else paths.filter(pc.equal(batch["split"], split).fill_null(False))
        counts.update(path_counts(paths))
    return counts


def label_pairs(
    products: pa.Table, positions: Mapping[CategoryPath, int], *, several: bool = False
) -> tuple[Integers, Integers]:
    """Return the positions of products' labels; a label without a position is left out.

    Args:
        products: Rows with `category_path`, which is not null, and if `several` with `category_paths`.
        positions: The position of each label that counts: `leaf_positions` or `label_positions` of a taxonomy.
        several: Take all paths of a product, and not the first alone.

    Returns:
        (pairs,) each: rows of products, in order, and the position of a label that the product has, each once.
    """
    labels = [[path] for path in products["category_path"].to_pylist()]
    if several:
        more = products["category_paths"].to_pylist()
        labels = [paths or first for paths, first in zip(more, labels, strict=True)]
    found = [dict.fromkeys(positions.get(tuple(path), -1) for path in paths) for paths in labels]
    pairs = [(row, label) for row, listed in enumerate(found) for label in listed if label >= 0]
    row, label = np.array(pairs, np.int64).reshape(-1, 2).T
    return row, label


def count_rows(files: Iterable[str]) -> int:
    """Count the rows of Parquet files from their footers, many at a time."""
    return sum(ahead(_footer_rows, files))


def _footer_rows(file: str) -> int:
    place = storage.locate(file)
    return int(pq.read_metadata(place.path, filesystem=place.filesystem).num_rows)


def table_rows(uri: str) -> int:
    """Count the rows of a table from the footers of its files."""
    return count_rows(parquet_files(uri))


def copy_documents(catalog: str, output: str, names: Sequence[str] = DOCUMENTS) -> None:
    """Copy the files of a catalogue beside its tables that exist."""
    for name in names:
        uri = storage.join(catalog, name)
        if storage.exists(uri):
            storage.write_bytes(storage.join(output, name), storage.read_bytes(uri))


def write_quarantine(output: str, rows: Sequence[Mapping[str, object]], name: str = "part-00000") -> None:
    """Write a file of the quarantine, unless there are no rows.

    Args:
        output: The run's folder, in which the file goes to `quarantine/`.
        rows: Rows of `atlas_ray.schemas.quarantine_row`.
        name: The name of the file, which has to differ between processes.
    """
    if not rows:
        return
    table = pa.Table.from_pylist(list(rows), schema=QUARANTINE)
    storage.write_table(storage.join(output, "quarantine", f"{name}.parquet"), table)
