"""A file that names products, made by a person or a job: a CSV, or Parquet."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from atlas_ray import storage
from atlas_ray.catalog.sources import RawRow, read_rows
from atlas_ray.errors import CatalogError, ConfigError
from atlas_ray.reports.spreadsheet import unguarded


def read_list(source: str, columns: Sequence[str]) -> Iterator[RawRow]:
    """Yield the rows of a list, one by one; the `product_id` of each is text, "" where it has none.

    Args:
        source: A .csv or .tsv, as a spreadsheet of any country saves it; a .parquet; or a folder of Parquet files.
        columns: What is read of it, `product_id` among them.

    Raises:
        ConfigError: where it is of another kind.
        CatalogError: where it lacks a column, or cannot be read at all.
    """
    for row in _rows(source, columns):
        if row.error is None:
            product_id = row.fields["product_id"]
            row.fields["product_id"] = "" if product_id is None else str(product_id)
        yield row


def _rows(source: str, columns: Sequence[str]) -> Iterator[RawRow]:
    if source.lower().endswith((".csv", ".tsv")):
        for row in read_rows(source, "csv", columns, cut_off=True):
            if row.error is None:
                _check(source, list(row.fields), columns)
                row.fields = {name: unguarded(row.fields[name]) for name in columns}
            yield row
    elif source.lower().endswith(".parquet") or storage.is_folder(source):
        yield from _parquet(source, columns)
    else:
        raise ConfigError(f"{source!r} is no list; expected a .csv, .tsv or .parquet file, or a folder of Parquet")


def _parquet(source: str, columns: Sequence[str]) -> Iterator[RawRow]:
    place = storage.locate(source)
    try:
        table = ds.dataset(place.path, filesystem=place.filesystem, format="parquet")
        _check(source, table.schema.names, columns)
        first = 1
        for batch in table.to_batches(columns=list(columns)):
            for number, fields in enumerate(batch.to_pylist(), first):
                yield RawRow(f"row {number}", fields)
            first += len(batch)
    except FileNotFoundError:
        raise CatalogError(f"{source}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{source}: not Parquet: {str(error).splitlines()[0]}") from None


def _check(source: str, found: list[str], columns: Sequence[str]) -> None:
    for name in columns:
        if name not in found:
            raise CatalogError(f"{source}: no column {name!r}; it has {found[:12]}; name one of them so")
