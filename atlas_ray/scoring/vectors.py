"""The vectors of an embedding run as the input of scoring: a row a product, as of one without a picture."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from atlas_ray.errors import EmbeddingError
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.runs.embedded import open_several, summed
from atlas_ray.runtime.joined import DONE, INPUTS, keys_without_picture
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.runtime.shuffle import by_product
from atlas_ray.runtime.sink import write_table
from atlas_ray.schemas import embeddings

if TYPE_CHECKING:
    from atlas_ray.artifacts import Artifact

COLUMNS = (*KEYS, "vector", "picture_error")
KEY_FIELDS = (pa.field("image_id", pa.int64()), pa.field("image_uri", pa.string()))
PARTITION_NUMBERS = 2**24
"""Numbers of the vectors that are brought together at once: 64 MiB."""


@dataclass(frozen=True)
class Vectors:
    """Vectors that a head answers from."""

    uri: str
    """The embedding runs, separated by commas."""
    encoder_id: str
    """The ids of the models that made them, joined by `+`."""
    tables: tuple[Table, ...]
    """The rows of each run, of `COLUMNS`; those of several are parts of vectors, which have to be summed by product."""
    width: int
    """The width of the vectors that the head reads."""

    @property
    def all_rows(self) -> int:
        """How many rows the runs have."""
        return sum(table.all_rows for table in self.tables)

    def joined(self, output: str) -> Table:
        """Return a table with one row a product; that of several runs is written into a scoring run's folder, once."""
        if len(self.tables) == 1:
            return self.tables[0]
        done, wanted = storage.join(output, DONE), {"embeddings": self.uri}
        schema = contract(self.width)
        if not storage.exists(done) or json.loads(storage.read_bytes(done)) != wanted:
            storage.delete_folder(storage.join(output, INPUTS))
            fields = pa.schema([schema.field(name).with_nullable(True) for name in COLUMNS])
            tables, rows = [(table, 0) for table in self.tables], max(1, PARTITION_NUMBERS // self.width)
            joined = by_product(tables, fields, self.all_rows, summed, partition_rows=rows)
            write_table(joined.write, output, INPUTS)
            storage.write_bytes(done, json.dumps(wanted).encode())
        return open_table(storage.join(output, INPUTS), schema, columns=COLUMNS)


def contract(width: int) -> pa.Schema:
    """Return the schema that `COLUMNS` are of."""
    return pa.schema([*embeddings(width), *KEY_FIELDS])


def open_vectors(uris: str, artifact: "Artifact", model: str) -> Vectors:
    """Open the vectors of embedding runs, for a head.

    Args:
        uris: The runs, separated by commas: the one that the head was trained on, or those of its modalities, any of
            which may be missing.
        artifact: The model.
        model: Its folder, for messages.

    Raises:
        EmbeddingError: if a run is not finished, the model is no head, or it reads other vectors.
    """
    runs = open_several(uris)
    if not artifact.takes_vectors:
        raise EmbeddingError(
            f"{model} is of kind {artifact.kind}, and only a head answers from vectors; make one with "
            f"`atlas-ray train head --embeddings {uris}`"
        )
    width = sum(artifact.feature_widths)
    starts = np.cumsum([0, *artifact.feature_widths])
    known = {member.encoder_id: int(start) for member, start in zip(artifact.members.values(), starts, strict=False)}
    known[artifact.encoder_id] = 0
    tables = []
    for run in runs:
        if run.model_id not in known:
            raise EmbeddingError(
                f"{run.uri} was made by model {run.model_id}, and the head in {model} reads vectors of "
                f"{artifact.encoder_id}; make those with `atlas-ray embed --model {model}`"
            )
        table = run.part(COLUMNS, known.pop(run.model_id), width, KEY_FIELDS)
        tables.append(replace(table, change=functools.partial(_with_keys, change=table.change)))
    return Vectors(",".join(run.uri for run in runs), "+".join(run.model_id for run in runs), tuple(tables), width)


def _with_keys(table: pa.Table, change: Callable[[pa.Table], pa.Table] | None) -> pa.Table:
    """Fill the keys that embeddings do not have."""
    table = table if change is None else change(table)
    for name, column in keys_without_picture(table["product_id"].to_pylist()).items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
    return table
