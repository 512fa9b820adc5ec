"""A catalogue's tables, opened and checked before anything starts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from atlas_ray import storage
from atlas_ray.errors import CatalogError
from atlas_ray.records import IMAGES, PATH_KEY_SEPARATOR, PRODUCTS, QUARANTINE, missing_columns, path_keys
from atlas_ray.streaming.outcomes import KEYS
from atlas_ray.taxonomy import CategoryPath

SPLIT = "split.json"
"""How a catalogue's products without a split get one (`atlas_ray.catalog.split.SplitRule`)."""
DOCUMENTS = ("taxonomy.json", SPLIT)
"""What a catalogue says of itself beside its tables."""


def count_images(
    catalog: str,
    *,
    images: Sequence[str] = KEYS,
    products: Sequence[str] = ("product_id",),
    may_be_empty: bool = False,
) -> int:
    """Check a catalogue's images and products tables; return how many pictures it has.

    Args:
        catalog: Its folder.
        images: The columns that its images table has to have.
        products: Those that its products table has to have.
        may_be_empty: Whether the images table may have no row.

    Raises:
        CatalogError: where a table is missing, damaged or empty, or lacks a column.
    """
    table = _open(catalog, "images", images, IMAGES)
    _open(catalog, "products", products, PRODUCTS)
    try:
        total = int(table.count_rows())
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{catalog}/images: not Parquet: {str(error).splitlines()[0]}") from None
    if total == 0 and not may_be_empty:
        raise CatalogError(f"{catalog}: its images table has no row")
    return total


def _open(catalog: str, name: str, needed: Sequence[str], schema: pa.Schema) -> ds.Dataset:
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


def count_labels(catalog: str, split: str | None = None) -> Counter[CategoryPath]:
    """Count the labelled products of a catalogue, or of one of its splits, by category path.

    Memory grows with the paths, not with the products.

    Raises:
        CatalogError: where its products table is missing or damaged.
    """
    columns = ["category_path"] + ([] if split is None else ["split"])
    table = _open(catalog, "products", [], PRODUCTS)
    if missing_columns(table.schema, columns):
        return Counter()
    found = Counter[CategoryPath]()
    try:
        for batch in table.to_batches(columns=columns):
            paths = batch["category_path"]
            paths = paths if split is None else paths.filter(pc.equal(batch["split"], split).fill_null(False))
            for key in pc.value_counts(path_keys(paths.drop_null())).to_pylist():
                found[tuple(key["values"].split(PATH_KEY_SEPARATOR))] += key["counts"]
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{catalog}/products: not Parquet: {str(error).splitlines()[0]}") from None
    return found


def count_rows(files: Iterable[str]) -> int:
    """Count the rows of Parquet files from their footers."""
    count = 0
    for file in files:
        place = storage.locate(file)
        count += pq.read_metadata(place.path, filesystem=place.filesystem).num_rows
    return count


def table_rows(uri: str) -> int:
    """Count the rows of a table from its files' footers."""
    return count_rows(storage.files(uri, suffix=".parquet"))


def copy_images(catalog: str, output: str) -> None:
    """Copy a catalogue's images table, file by file."""
    for uri in storage.files(storage.join(catalog, "images"), suffix=".parquet"):
        storage.write_bytes(storage.join(output, "images", uri.rpartition("/")[2]), storage.read_bytes(uri))


def copy_documents(catalog: str, output: str, names: Sequence[str] = DOCUMENTS) -> None:
    """Copy what a catalogue says of itself beside its tables, where it does."""
    for name in names:
        uri = storage.join(catalog, name)
        if storage.exists(uri):
            storage.write_bytes(storage.join(output, name), storage.read_bytes(uri))


def write_quarantine(output: str, rows: Sequence[Mapping[str, object]], name: str = "part-00000") -> None:
    """Write a file of the quarantine, where there is something to write.

    Args:
        output: The run's folder; the file goes to `quarantine/` below it.
        rows: As `atlas_ray.records.quarantine_row` makes them.
        name: Of the file: each process that writes needs its own.
    """
    if not rows:
        return
    table = pa.Table.from_pylist(list(rows), schema=QUARANTINE)
    storage.write_table(storage.join(output, "quarantine", f"{name}.parquet"), table)
