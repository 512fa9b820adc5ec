"""Lists of products, made by a person or a job, as CSV or Parquet."""

import unicodedata
from collections.abc import Container, Iterator, Sequence
from typing import Any

import pyarrow as pa

from atlas_ray.catalog.parts import RawRow
from atlas_ray.catalog.sources import Source
from atlas_ray.errors import CatalogError, ConfigError, RowError
from atlas_ray.formats.delimited import column_key
from atlas_ray.formats.spreadsheet import unguarded
from atlas_ray.formats.tables import READ_ROWS, open_table
from atlas_ray.formats.values import identifier, valid_text
from atlas_ray.io import storage


def read_list(source: str, columns: Sequence[str]) -> Iterator[RawRow]:
    """Yield the rows of a list, one by one; the `product_id` of each is text, "" if it has none.

    Args:
        source: A .csv or .tsv, as a spreadsheet of any country saves it; a .parquet; or a folder of Parquet files.
        columns: What is read of it, `product_id` among them.

    Raises:
        ConfigError: if it is of another kind.
        CatalogError: if it lacks a column, or cannot be read at all.
    """
    for row in _rows(source, columns):
        if row.error is None:
            try:
                row.fields["product_id"] = _product_id(row.fields["product_id"])
            except RowError as error:
                row.error = error
        yield row


def _product_id(value: Any) -> str:
    """Return the id of a product that there is already; its spaces count."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", valid_text(value, "product id"))
    return identifier(value, "product id") or ""


def _rows(source: str, columns: Sequence[str]) -> Iterator[RawRow]:
    if source.lower().endswith((".csv", ".tsv")):
        table = Source(source, "csv", columns, cut_off=True)
        header = table.header or []
        spelt = {column_key(name): name for name in reversed(header)}
        named = {name: spelt[column_key(name)] for name in columns if column_key(name) in spelt}
        _check(source, header, columns, named)
        for row in table:
            if row.error is None and not row.blank:
                row.fields = {name: unguarded(row.fields[column]) for name, column in named.items()}
            if not row.blank:
                yield row
        table.warn_if_assumed()
    elif source.lower().endswith(".parquet") or storage.is_folder(source):
        yield from _parquet(source, columns)
    else:
        raise ConfigError(f"{source!r} is no list; expected a .csv, .tsv or .parquet file, or a folder of Parquet")


def _parquet(source: str, columns: Sequence[str]) -> Iterator[RawRow]:
    if not storage.exists(source):
        raise CatalogError(f"{source}: no such file")
    table = open_table(source, pa.schema([]), others=True)
    if table.files:
        _check(source, table.schema.names, columns, table.schema.names)
    first = 1
    for file in table.files:
        for written, _ in file.batches([table.schema.field(name) for name in columns], READ_ROWS):  # judged row by row
            batch = pa.table(written, names=list(columns))
            for number, fields in enumerate(batch.to_pylist(), first):
                yield RawRow(f"row {number}", fields)
            first += len(batch)


def _check(source: str, header: Sequence[str], columns: Sequence[str], known: Container[str]) -> None:
    for name in columns:
        if name not in known:
            raise CatalogError(f"{source}: no column {name!r}; it has {list(header[:12])}; name one of them so")
