"""Rows of Parquet files."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from atlas_ray.catalog.parts import TABLE_ROWS, Origin, Part, RawTable
from atlas_ray.errors import CatalogError
from atlas_ray.formats.columns import plain_type
from atlas_ray.formats.table_files import parquet_files, read_footers


def in_row_groups(source: Origin, *, whole: bool) -> list[Part]:
    """Cut Parquet files at their row groups."""
    if not parquet_files(source.uri):
        raise CatalogError(f"{source.uri}: no Parquet file in it")
    parts: list[Part] = []
    for file in read_footers(source.uri, set()):
        name = file.uri[len(source.uri.rstrip("/")) + 1 :] if file.uri != source.uri else ""
        before = 0
        for at in range(1 if whole else len(file.groups)):
            groups = file if whole else file.part(at, at + 1)
            size = sum(group.bytes for group in groups.groups)
            part = Part(len(parts), file.uri, groups.rows, size, name, groups=groups, before=before)
            parts.append(part)
            before += groups.rows
    return parts


def read_parquet(source: Origin, parts: Sequence[Part]) -> Iterator[RawTable]:
    """Read Parquet files; a column that a file lacks is missing in its rows."""
    for part in parts:
        file = part.groups
        assert file is not None
        names = list(dict.fromkeys((*file.schema.names, *file.folders)))
        source.header = names
        fields = [pa.field(name, plain_type(file.type_of(name))) for name in names]
        first = part.before + 1
        for raw, _ in file.batches(fields, TABLE_ROWS):
            table = pa.Table.from_arrays(raw, names=names)
            yield RawTable(table, list(range(first, first + len(table))), [1] * len(table), [], part.name)
            first += len(table)
