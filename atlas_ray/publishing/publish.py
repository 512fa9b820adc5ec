"""Publishing: a finished scoring run as one commit of a table of a warehouse."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from atlas_ray.errors import ConfigError
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.publishing.published import Commit, PublishedRun, WarehouseTable, read_published
from atlas_ray.runs.run_record import PUBLISHED
from atlas_ray.settings import Settings, setting

REPLACE, APPEND = "replace", "append"


def _iceberg(name: str) -> WarehouseTable:
    from atlas_ray.publishing.iceberg import IcebergTable

    return IcebergTable(name)


def _delta(location: str) -> WarehouseTable:
    from atlas_ray.publishing.delta import DeltaLakeTable

    return DeltaLakeTable(location)


TABLES: dict[str, Callable[[str], WarehouseTable]] = {"iceberg": _iceberg, "delta": _delta}
"""Kinds of tables, by what stands before the colon of `--table`."""


@dataclass(frozen=True, kw_only=True)
class PublishConfig(Settings):
    """The run to publish, and the table."""

    run: str = setting("finished scoring run, or a migrated one")
    table: str = setting(
        "table: iceberg:CATALOG.NAMESPACE.NAME, with the catalog's name in pyiceberg's configuration, or delta:FOLDER"
    )
    mode: str = setting(
        "what becomes of the table's rows: they make room for the run's, or stay", REPLACE, choices=(REPLACE, APPEND)
    )
    copy: bool = setting("copy the run's files even if the table could refer to them", False)


@dataclass(frozen=True)
class PublishReport:
    """The outcome of publishing a run."""

    run: PublishedRun
    table: str
    commit: Commit
    already_done: bool
    """The table had a commit of this run, and nothing was done."""


@holding("publish", "config.run")
def publish(config: PublishConfig) -> PublishReport:
    """Make the products of a finished run one atomic commit of an Iceberg or a Delta table.

    The run's id stands in the commit's properties: a run that the table has a commit of is not published again. What
    was killed before its commit has changed no row, and the same call publishes the run then. Files that the table can
    refer to stay where they are; others are copied, under names that follow from the run.

    Raises:
        CatalogError: if there is no finished run, or its columns do not fit the table.
        ConfigError: if the table's name is of another form, or its catalog is not configured.
        OutputError: if another command uses the run.
        StorageError: if the table cannot be read or written.
        OutageError: if somebody else changed the table at the same moment.
    """
    kind, _, name = config.table.partition(":")
    if kind not in TABLES or not name:
        raise ConfigError(
            f"table is {config.table!r}; expected iceberg:CATALOG.NAMESPACE.NAME or delta:FOLDER, such as "
            "delta:s3://bucket/tables/products"
        )
    run = read_published(config.run)
    table = TABLES[kind](name)
    if (done := table.commit_of(run.id)) is not None:
        return PublishReport(run, config.table, done, already_done=True)
    commit = table.commit(run, append=config.mode == APPEND, copy=config.copy)
    if commit.by_reference:
        document = json.dumps({"table": config.table, "version": commit.version})
        storage.write_bytes(storage.join(run.uri, PUBLISHED), document.encode())
    return PublishReport(run, config.table, commit, already_done=False)
