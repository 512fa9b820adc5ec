"""A finished run as the tables of a warehouse take it, and what such a table does."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from atlas_ray.errors import CatalogError
from atlas_ray.formats.table_files import TableFile, first_line
from atlas_ray.io import storage
from atlas_ray.runs.run_record import RUN
from atlas_ray.runs.scored import open_scored
from atlas_ray.schemas import CATEGORIZED

RUN_ID = "atlas-ray.run-id"
"""The property of a commit that names the run which it published."""


@dataclass(frozen=True)
class PublishedRun:
    """The products of a finished run, as they are published."""

    uri: str
    id: str
    """A hash of the run's account: another one for each time that the run was made."""
    files: tuple[TableFile, ...]
    schema: pa.Schema
    """The columns of the contract and those beside it that some file has, each of which may be null."""

    @property
    def rows(self) -> int:
        """How many products there are."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class Commit:
    """A version of a table that holds a run."""

    version: str
    by_reference: bool = False
    """Whether the table's files are the run's own."""


class WarehouseTable(Protocol):
    """A table that a run is published to."""

    def commit_of(self, run_id: str) -> Commit | None:
        """Return the commit that published a run, or None if there is none."""

    def commit(self, run: PublishedRun, *, append: bool, copy: bool) -> Commit:
        """Publish a run in one commit, which makes the table if there is none.

        Args:
            run: The run.
            append: Whether the rows of the table stay.
            copy: Whether files are copied even if the table could refer to them.
        """


def read_published(uri: str) -> PublishedRun:
    """Open a finished run to publish it.

    Raises:
        CatalogError: if there is none, or files of its products table have a column of different types.
    """
    scored = open_scored(uri, target=None)
    files = scored.products.files
    schema = _nullable(CATEGORIZED)
    for file in files:
        try:
            schema = pa.unify_schemas([schema, _nullable(file.schema)])
        except pa.ArrowException as error:
            raise CatalogError(
                f"{file.uri}: a column is of another type than in the contract, or in files before: "
                f"{first_line(error)}; score the catalogue anew"
            ) from None
    account = storage.read_bytes(storage.join(scored.uri, RUN))
    return PublishedRun(scored.uri, hashlib.sha256(account).hexdigest()[:16], files, schema)


def _nullable(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose columns may all be null, without the notes of the program that wrote it."""
    return pa.schema([pa.field(one.name, one.type) for one in schema])
