"""Iceberg tables, in the catalogs that pyiceberg's own configuration names."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ValidationError
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.table import Table, TableProperties
from pyiceberg.utils.config import Config

from atlas_ray.errors import CatalogError, ConfigError, OutageError, StorageError
from atlas_ray.io import stores
from atlas_ray.io.ahead import ahead
from atlas_ray.publishing.copying import are_plain, copy_files, pour
from atlas_ray.publishing.published import RUN_ID, Commit, PublishedRun

PROPERTIES = {"aws_endpoint": "s3.endpoint", "aws_region": "s3.region"}
"""Properties of an Iceberg catalog, by the names of the same in a store's options."""
LIBRARIES = ("pyiceberg", "sqlalchemy", "botocore")
"""Libraries whose errors say in a line why a catalog or a store refuses; those of pyiceberg have no class in common."""


class IcebergTable:
    """A table of an Iceberg catalog."""

    def __init__(self, name: str) -> None:
        """Open the catalog.

        Raises:
            ConfigError: if the name has no catalog or namespace, or pyiceberg's configuration has no such catalog.
        """
        self._name = name
        catalog, _, identifier = name.partition(".")
        if "." not in identifier:
            raise ConfigError(f"the table iceberg:{name} names no namespace; expected iceberg:CATALOG.NAMESPACE.NAME")
        self._identifier = tuple(identifier.split("."))
        try:
            self._catalog: Catalog = load_catalog(catalog, **_stores(catalog))
        except Exception as error:
            if not isinstance(error, ValueError | ImportError | OSError) and not _is_of_a_library(error):
                raise
            raise ConfigError(
                f"the Iceberg catalog {catalog!r} cannot be opened: {_line(error)}; describe it in ~/.pyiceberg.yaml, "
                f"or with PYICEBERG_CATALOG__{catalog.upper()}__URI and the like"
            ) from None

    def commit_of(self, run_id: str) -> Commit | None:
        """Return the snapshot that published a run."""
        with self._named():
            table = self._table()
            for snapshot in reversed(table.snapshots() if table else []):
                if snapshot.summary is not None and snapshot.summary.additional_properties.get(RUN_ID) == run_id:
                    return Commit(str(snapshot.snapshot_id))
        return None

    def commit(self, run: PublishedRun, *, append: bool, copy: bool) -> Commit:
        """Publish a run as one snapshot, and with it the table or its further columns."""
        with self._named():
            table = self._table()
            if table is None:
                self._catalog.create_namespace_if_not_exists(self._identifier[:-1])
                change: Any = self._catalog.create_table_transaction(self._identifier, schema=run.schema)
            else:
                change = table.transaction()
                with change.update_schema() as columns:
                    columns.union_by_name(run.schema)
            metadata = change.table_metadata
            # Files that no Iceberg writer made have no ids of columns: their names stand for them.
            mapping = metadata.schema().name_mapping.model_dump_json()
            change.set_properties(**{TableProperties.DEFAULT_NAME_MAPPING: mapping})
            files = change._table.io
            own = None if copy else _own_files(run, metadata.location)
            uris = own or self._copied(run, metadata.location, files)
            replaced = [] if append or table is None else [task.file for task in table.scan().plan_files()]
            metadata = change.table_metadata
            added = list(ahead(lambda uri: parquet_file_to_data_file(files, metadata, uri), uris))
            with change.update_snapshot(snapshot_properties={RUN_ID: run.id}).overwrite() as snapshot:
                for file in replaced:
                    snapshot.delete_data_file(file)
                for file in added:
                    snapshot.append_data_file(file)
            change.commit_transaction()
            return Commit(str(snapshot.snapshot_id), by_reference=own is not None)

    def _table(self) -> Table | None:
        if not self._catalog.table_exists(self._identifier):
            return None
        return self._catalog.load_table(self._identifier)

    def _copied(self, run: PublishedRun, location: str, files: Any) -> list[str]:
        """Copy the run's files below the table, with the rights that its catalog gives."""
        folder = f"{location.rstrip('/')}/data"

        def write(name: str, source: Any) -> None:
            with files.new_output(f"{folder}/{name}").create(overwrite=True) as target:
                pour(source, target)

        return [f"{folder}/{name}" for name in copy_files(run, write)]

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Turn errors of pyiceberg and of its catalog into ours."""
        try:
            yield
        except (CommitFailedException, CommitStateUnknownException) as error:
            raise OutageError(
                f"iceberg:{self._name} was changed at the same moment: {_line(error)}; give the same command again"
            ) from None
        except (ValueError, TypeError, ValidationError) as error:
            raise CatalogError(f"iceberg:{self._name} does not take the run: {_line(error)}") from None
        except Exception as error:
            if not isinstance(error, OSError) and not _is_of_a_library(error):
                raise
            raise StorageError(f"iceberg:{self._name}: {_line(error)}") from None


def _stores(catalog: str) -> dict[str, str]:
    """Return where the stores are, as the environment says, unless pyiceberg's configuration of the catalog does."""
    known = Config().get_catalog_config(catalog) or {}
    options = stores.store_of("s3").options()
    return {name: options[own] for own, name in PROPERTIES.items() if own in options and name not in known}


def _own_files(run: PublishedRun, location: str) -> Sequence[str] | None:
    """Return the addresses of the run's own files, if they are in the table's store; None if they are to be copied."""
    uris = [file.uri for file in run.files]
    if not are_plain(uris):
        return None
    if stores.is_object(run.uri):
        same = stores.is_object(location) and stores.split(location)[:2] == stores.split(run.uri)[:2]
    else:
        same = "://" not in location or location.startswith("file://")
        uris = [f"file://{uri}" for uri in uris]
    return uris if same else None


def _is_of_a_library(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in LIBRARIES


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
