"""Delta tables, in a folder or an S3 prefix."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, CommitProperties, Transaction, create_table_with_add_actions

from atlas_ray.errors import CatalogError, OutageError, StorageError
from atlas_ray.io import storage, stores
from atlas_ray.publishing.copying import are_plain, copy_files, pour
from atlas_ray.publishing.published import RUN_ID, Commit, PublishedRun


class DeltaLakeTable:
    """A Delta table by its location."""

    def __init__(self, location: str) -> None:
        """Take the location, which need not hold a table yet."""
        self._location = storage.absolute(location)
        self._options = _options(self._location)

    def commit_of(self, run_id: str) -> Commit | None:
        """Return the version that published a run."""
        with self._named():
            table = self._table()
            if table is None or table.transaction_version(_application(run_id)) is None:
                return None
            versions = [one["version"] for one in table.history() if one.get(RUN_ID) == run_id]
            return Commit(str(versions[0]) if versions else "an earlier version")

    def commit(self, run: PublishedRun, *, append: bool, copy: bool) -> Commit:
        """Publish a run as one version of the table."""
        with self._named():
            own = None if copy else _own_files(run, self._location)
            names = own or copy_files(run, self._write)
            actions = [self._add(name, file.rows) for name, file in zip(names, run.files, strict=True)]
            # A writer's transaction: of two commits of the same run Delta itself refuses the second.
            properties = CommitProperties(
                custom_metadata={RUN_ID: run.id}, app_transactions=[Transaction(_application(run.id), 1)]
            )
            table = self._table()
            if table is None:
                create_table_with_add_actions(
                    _url(self._location), Schema.from_arrow(run.schema), actions, mode="error",
                    storage_options=self._options, commit_properties=properties,
                )  # fmt: skip
            else:
                schema = _unified(table, run.schema)
                if append:  # which would leave the columns as they are
                    _add_columns(table, schema)
                table.create_write_transaction(
                    [*actions], "append" if append else "overwrite", schema, commit_properties=properties
                )
            version = DeltaTable(_url(self._location), storage_options=self._options).version()
            return Commit(str(version), by_reference=own is not None)

    def _table(self) -> DeltaTable | None:
        if not DeltaTable.is_deltatable(_url(self._location), storage_options=self._options):
            return None
        return DeltaTable(_url(self._location), storage_options=self._options)

    def _write(self, name: str, source: Any) -> None:
        with storage.writing(storage.join(self._location, name)) as target:
            pour(source, target)

    def _add(self, name: str, rows: int) -> AddAction:
        place = storage.locate(storage.join(self._location, name))
        info = place.filesystem.get_file_info(place.path)
        changed_ms = int((info.mtime_ns or 0) // 1_000_000)
        return AddAction(name, info.size, {}, changed_ms, True, json.dumps({"numRecords": rows}))

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Turn errors of Delta into ours."""
        try:
            yield
        except CommitFailedError as error:
            raise OutageError(
                f"delta:{self._location} was changed at the same moment: {_line(error)}; give the same command again"
            ) from None
        except (DeltaError, OSError) as error:
            raise StorageError(f"delta:{self._location}: {_line(error)}") from None


def _own_files(run: PublishedRun, location: str) -> Sequence[str] | None:
    """Return the names of the run's own files, if they are below the table; None if they are to be copied.

    Delta allows addresses elsewhere, but few of its readers take them.
    """
    uris = [file.uri for file in run.files]
    below = location.rstrip("/") + "/"
    if not are_plain(uris) or not all(uri.startswith(below) for uri in uris):
        return None
    return [uri.removeprefix(below) for uri in uris]


def _application(run_id: str) -> str:
    return f"atlas-ray/{run_id}"


def _url(location: str) -> str:
    """Return a location as an address, since Delta takes a path for a part of one."""
    return location if stores.is_object(location) else f"file://{location}"


def _unified(table: DeltaTable, schema: pa.Schema) -> pa.Schema:
    """Return the columns of a table and those of a run.

    Raises:
        CatalogError: naming a column that is of another type in both.
    """
    stored = pa.schema(table.schema().to_arrow())
    try:
        return pa.unify_schemas([stored, schema])
    except pa.ArrowException as error:
        raise CatalogError(f"{table.table_uri} does not take the run: {_line(error)}") from None


def _add_columns(table: DeltaTable, schema: pa.Schema) -> None:
    """Add columns that a table lacks, in a commit of its own; they are null in its rows."""
    known = {field.name for field in table.schema().fields}
    further = [field for field in Schema.from_arrow(schema).fields if field.name not in known]
    if further:
        table.alter.add_columns(further)


def _options(location: str) -> dict[str, str]:
    """Return where the store of a location is; credentials come from the usual chain of its provider."""
    return stores.store_of(stores.split(location)[0]).options() if stores.is_object(location) else {}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
