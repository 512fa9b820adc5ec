"""Rows of tables in Iceberg, Delta and Lance: a version of the table, file by file, as its own library reads it.

The version is chosen when the source is first cut into parts, and every part names it, so that all tasks read the same
rows whatever is written meanwhile.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from atlas_ray.catalog.parts import TABLE_ROWS, Origin, Part, RawTable
from atlas_ray.errors import CatalogError
from atlas_ray.formats.columns import plain_type
from atlas_ray.formats.table_files import first_line, read_footers
from atlas_ray.formats.values import printable
from atlas_ray.io import storage, stores

WHOLE = "columnMapping"
"""The feature of a Delta table whose files do not say the names of their columns."""


def iceberg_parts(source: Origin, *, whole: bool) -> list[Part]:  # noqa: ARG001 - its files are what it is made of
    """Return the data files of a snapshot of an Iceberg table."""
    table = _iceberg(source)
    if source.snapshot is None:
        snapshot = table.current_snapshot()
        properties = {**table.io.properties}
        source.snapshot = (table.metadata_location, properties, snapshot.snapshot_id if snapshot else None)
    *_, snapshot_id = source.snapshot
    source.header = source.header or [field.name for field in _iceberg_scan(table, snapshot_id).projection().fields]
    tasks = list(_iceberg_scan(table, snapshot_id).plan_files()) if snapshot_id is not None else []
    tasks.sort(key=lambda task: task.file.file_path)
    return [
        Part(
            number,
            task.file.file_path,
            task.file.record_count,
            task.file.file_size_in_bytes,
            _name(task.file.file_path),
            handle=(source.snapshot, task),
        )
        for number, task in enumerate(tasks)
    ]


def read_iceberg(source: Origin, parts: Sequence[Part]) -> Iterator[RawTable]:
    """Read data files of an Iceberg table, without the rows that its delete files name."""
    from pyiceberg.exceptions import NotInstalledError
    from pyiceberg.io.pyarrow import ArrowScan

    for part in parts:
        source.snapshot, task = part.handle
        table = _iceberg(source)
        scan = _iceberg_scan(table, source.snapshot[2])
        rows = ArrowScan(table.metadata, table.io, scan.projection(), scan.row_filter).to_record_batches([task])
        source.header = [field.name for field in scan.projection().fields]
        yield from _numbered(
            part, _readable(part.uri, rows, (OSError, ValueError, pa.ArrowException, NotInstalledError))
        )


def _iceberg_scan(table: Any, snapshot_id: int | None) -> Any:
    return table.scan(snapshot_id=snapshot_id) if snapshot_id is not None else table.scan()


def _iceberg(source: Origin) -> Any:
    """Open the table that a metadata file, a folder, or a name in a catalogue stands for."""
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import (
        NoSuchIdentifierError,
        NoSuchNamespaceError,
        NoSuchTableError,
        NotInstalledError,
        ValidationError,
    )
    from pyiceberg.table import StaticTable

    wrong = (
        NoSuchTableError, NoSuchIdentifierError, NoSuchNamespaceError, NotInstalledError, ValidationError, OSError,
        ValueError, KeyError,
    )  # fmt: skip
    try:
        if source.snapshot is not None:
            return StaticTable.from_metadata(*source.snapshot[:2])
        if is_name(source.uri):
            catalog, _, name = source.uri.partition(".")
            return load_catalog(catalog).load_table(name)
        return StaticTable.from_metadata(_metadata_of(source.uri))
    except wrong as error:
        if isinstance(error, ModuleNotFoundError):
            raise
        raise CatalogError(
            f"{source.uri}: no Iceberg table ({printable(first_line(error))[:200]}); expected its folder, its "
            "metadata file, or CATALOG.NAMESPACE.TABLE of pyiceberg's configuration"
        ) from None


def is_name(source: str) -> bool:
    """Tell whether a source is a name in a catalogue of tables: `shop.sales.products`."""
    return bool(re.fullmatch(r"[\w\-]+(\.[\w\-]+){2,}", source)) and not source.endswith(".json")


def _metadata_of(uri: str) -> str:
    """Return the newest metadata file of a table's folder."""
    if uri.endswith(".json"):
        return uri
    folder = storage.join(uri, "metadata")
    names = (
        [name for name, _ in storage.walk(folder) if name.endswith(".metadata.json")]
        if storage.is_folder(folder)
        else []
    )
    if not names:
        raise CatalogError(f"{uri}: no Iceberg table, for there is no metadata/*.metadata.json in it")
    return storage.join(folder, max(names, key=lambda name: (_version(name), name)))


def _version(name: str) -> int:
    found = re.match(r"v?(\d+)", name)
    return int(found[1]) if found else -1


def delta_parts(source: Origin, *, whole: bool) -> list[Part]:  # noqa: ARG001 - its files are what it is made of
    """Return the data files of a version of a Delta table."""
    table = _delta(source)
    source.snapshot = table.version()
    source.header = [field.name for field in table.schema().fields]
    added = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    rows = sum(file["num_records"] or 0 for file in added)
    size = sum(file["size_bytes"] for file in added)
    if WHOLE in (table.protocol().reader_features or ()) or table.metadata().configuration.get(
        "delta.columnMapping.mode", "none"
    ) not in ("none", None):
        return [Part(0, source.uri, rows, size, handle=(source.snapshot, {}, None))]
    kept = {
        unquote(row["filepath"]).rpartition("/")[2]: (np.packbits(mask), len(mask))
        for batch in table.deletion_vectors()
        for row in pa.Table.from_batches([pa.record_batch(batch)]).to_pylist()
        for mask in (row["selection_vector"],)
    }
    root = source.uri.rstrip("/")
    parts: list[Part] = []
    for file in sorted(added, key=lambda file: str(file["path"])):
        path = unquote(file["path"])
        uri = path if "://" in path or path.startswith("/") else f"{root}/{path}"
        folders = {
            key.removeprefix("partition."): None if value is None else str(value)
            for key, value in file.items()
            if key.startswith("partition.")
        }
        name = uri.removeprefix(f"{root}/")
        handle = (source.snapshot, folders, kept.get(name.rpartition("/")[2]))
        parts.append(Part(len(parts), uri, file["num_records"] or 0, file["size_bytes"], name, handle=handle))
    return parts


def read_delta(source: Origin, parts: Sequence[Part]) -> Iterator[RawTable]:
    """Read data files of a Delta table, without the rows that its deletion vectors name."""
    for part in parts:
        source.snapshot, folders, kept = part.handle
        if part.uri == source.uri:
            yield from _numbered(part, _readable(part.uri, _delta(source).scan(), (OSError, pa.ArrowException)))
            continue
        (file,) = read_footers(part.uri, set())
        file = replace(file, folders=folders)
        names = list(dict.fromkeys((*file.schema.names, *folders)))
        source.header = source.header or names
        columns = file.batches([pa.field(name, plain_type(file.type_of(name))) for name in names], TABLE_ROWS)
        tables = (pa.Table.from_arrays(raw, names=names) for raw, _ in columns)
        yield from _numbered(part, tables, kept)


def _delta(source: Origin) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        return DeltaTable(source.uri, version=source.snapshot, storage_options=_options(source.uri))
    except (DeltaError, OSError, ValueError) as error:
        raise CatalogError(f"{source.uri}: no Delta table ({printable(first_line(error))[:200]})") from None


def lance_parts(source: Origin, *, whole: bool) -> list[Part]:  # noqa: ARG001 - its fragments are what it is made of
    """Return the fragments of a version of a Lance table."""
    table = _lance(source)
    source.snapshot = table.version
    source.header = list(table.schema.names)
    row_bytes = 100 * len(source.header)
    return [
        Part(number, source.uri, rows, rows * row_bytes, f"fragment {one.fragment_id}",
             handle=(source.snapshot, one.fragment_id))
        for number, one in enumerate(table.get_fragments())
        for rows in (one.count_rows(),)
    ]  # fmt: skip


def read_lance(source: Origin, parts: Sequence[Part]) -> Iterator[RawTable]:
    """Read fragments of a Lance table, without deleted rows."""
    for part in parts:
        source.snapshot, number = part.handle
        table = _lance(source)
        source.header = list(table.schema.names)
        batches = table.get_fragment(number).to_batches(batch_size=TABLE_ROWS)
        yield from _numbered(part, _readable(f"{part.uri}, {part.name}", batches, (OSError, ValueError)))


def _lance(source: Origin) -> Any:
    import lance

    try:
        return lance.dataset(source.uri, version=source.snapshot, storage_options=_options(source.uri))
    except (OSError, ValueError) as error:
        raise CatalogError(f"{source.uri}: no Lance table ({printable(first_line(error))[:200]})") from None


def _options(uri: str) -> dict[str, str] | None:
    return stores.store_of(uri.partition(":")[0]).options() if stores.is_object(uri) else None


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _readable(uri: str, rows: Iterable[Any], wrong: tuple[type[Exception], ...]) -> Iterator[pa.Table]:
    """Yield batches as tables of a bounded number of rows."""
    try:
        for batch in rows:
            table = pa.table(batch) if not isinstance(batch, pa.RecordBatch) else pa.Table.from_batches([batch])
            for start in range(0, len(table), TABLE_ROWS):
                yield table.slice(start, TABLE_ROWS)
    except wrong as error:
        raise CatalogError(f"{uri}: cannot be read: {printable(first_line(error))[:300]}") from None


def _numbered(part: Part, tables: Iterable[pa.Table], kept: tuple[Any, int] | None = None) -> Iterator[RawTable]:
    """Yield tables with the numbers of their rows in the file, without those that are not kept."""
    mask = np.unpackbits(kept[0], count=kept[1]).astype(bool) if kept else None
    before = 0
    for table in tables:
        numbers = np.arange(before + 1, before + 1 + len(table))
        before += len(table)
        if mask is not None:
            good = np.ones(len(table), bool)  # rows after the last deleted one are not named
            some = mask[numbers[0] - 1 : numbers[-1]]
            good[: len(some)] = some
            table, numbers = table.filter(pa.array(good)), numbers[good]
        yield RawTable(table, numbers.tolist(), [1] * len(table), [], part.name)
