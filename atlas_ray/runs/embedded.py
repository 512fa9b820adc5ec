"""The vectors of finished embedding runs, opened to be read in a stream."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import matrix, numbered, or_null, row_at
from atlas_ray.errors import EmbeddingError
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.runs.run_record import read_run
from atlas_ray.schemas import embeddings

JOB = "embed"
EMBEDDINGS = "embeddings"
ENCODER = "encoder"
"""The folder with a copy of the model that made the vectors."""


@dataclass(frozen=True)
class Embedded:
    """The output of `atlas-ray embed`."""

    uri: str
    run: dict[str, Any]
    """The content of `run.json`."""

    @property
    def model_id(self) -> str:
        """The id of the model that made the vectors."""
        return str(self.run["identity"]["model_id"])

    @property
    def width(self) -> int:
        """The width of the vectors."""
        return int(self.run["identity"]["width"])

    @property
    def catalog(self) -> str:
        """The catalogue whose products have the vectors."""
        return str(self.run["identity"]["catalog"])

    @property
    def encoder(self) -> str | None:
        """The folder of the model that made the vectors; None if an older version made them, which kept no copy."""
        uri = storage.join(self.uri, ENCODER)
        return uri if storage.exists(uri) else None

    def table(self, columns: Sequence[str] | None = None, more: Sequence[pa.Field] = ()) -> Table:
        """Open the embeddings, of schema `embeddings` and of more fields, which are null."""
        schema = pa.schema([*embeddings(self.width), *more])
        return open_table(storage.join(self.uri, EMBEDDINGS), schema, columns=columns)

    def part(self, columns: Sequence[str], start: int, width: int, more: Sequence[pa.Field] = ()) -> Table:
        """Open the embeddings as a part of wider vectors, which are 0 elsewhere.

        Args:
            columns: Columns of `table`.
            start: Where the part begins.
            width: The width of the whole vectors.
            more: As in `table`.
        """
        change = functools.partial(_widened, start=start, width=width)
        return replace(self.table(columns, more), change=change if width != self.width else None)


def _widened(table: pa.Table, start: int, width: int) -> pa.Table:
    wide = np.zeros((len(table), width), np.float32)
    vectors = matrix(table["vector"])
    wide[:, start : start + vectors.shape[1]] = vectors
    column = pa.FixedSizeListArray.from_arrays(pa.array(wide.reshape(-1)), width)
    return table.set_column(table.column_names.index("vector"), "vector", column)


def summed(table: pa.Table) -> pa.Table:
    """Make the rows of each product one: the sum of their vectors, and any value of each other column that is there."""
    table = table.combine_chunks()
    ids, owner = numbered(table["product_id"])
    if len(ids) == len(table):
        return table
    columns = {}
    for name in table.column_names:
        if name == "vector":
            vectors = matrix(table[name])
            sums = np.zeros((len(ids), vectors.shape[1]), np.float32)
            np.add.at(sums, owner, vectors)
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(sums.reshape(-1)), vectors.shape[1])
        else:
            there = np.flatnonzero(pc.is_valid(table[name]).to_numpy())
            columns[name] = table[name].take(or_null(row_at(owner[there], len(ids), there)))
    return pa.table(columns)


def open_embedded(uri: str) -> Embedded:
    """Open a finished embedding run.

    Raises:
        EmbeddingError: if it is none, is not finished, or has no product.
    """
    uri = storage.absolute(uri)
    run = read_run(uri)
    if run is None or run.get("job") != JOB:
        raise EmbeddingError(f"{uri} is no finished embedding run; make one with `atlas-ray embed`")
    if not run["counts"]["products"]:
        raise EmbeddingError(f"{uri}: no product could be embedded; {uri}/quarantine says why")
    return Embedded(uri, run)


def open_several(uris: str) -> tuple[Embedded, ...]:
    """Open finished embedding runs, separated by commas; raises as `open_embedded`."""
    return tuple(open_embedded(uri) for uri in uris.split(",") if uri)
