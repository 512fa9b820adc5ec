"""The vectors of an embedding run as the input of scoring: a row a product, as of one without a picture."""

from dataclasses import dataclass, replace

import pyarrow as pa

from atlas_ray.artifacts import Artifact
from atlas_ray.errors import EmbeddingError
from atlas_ray.formats.tables import Table, open_table
from atlas_ray.io import storage
from atlas_ray.runs.embedded import EMBEDDINGS, open_embedded
from atlas_ray.runtime.joined import keys_without_picture
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.schemas import embeddings

COLUMNS = (*KEYS, "vector", "picture_error")


@dataclass(frozen=True)
class Vectors:
    """Vectors that a head answers from."""

    uri: str
    """The embedding run."""
    encoder_id: str
    """The id of the model that made them."""
    table: Table
    """Rows of `COLUMNS`."""


def open_vectors(uri: str, artifact: Artifact, model: str) -> Vectors:
    """Open the vectors of an embedding run, for a head.

    Args:
        uri: The run.
        artifact: The model.
        model: Its folder, for messages.

    Raises:
        EmbeddingError: if the run is not finished, the model is no head, or it reads other vectors.
    """
    embedded = open_embedded(uri)
    if not artifact.takes_vectors:
        raise EmbeddingError(
            f"{model} is of kind {artifact.kind}, and only a head answers from vectors; make one with "
            f"`atlas-ray train head --embeddings {uri}`"
        )
    if artifact.encoder_id != embedded.model_id:
        raise EmbeddingError(
            f"{embedded.uri} was made by model {embedded.model_id}, and the head in {model} reads vectors of "
            f"{artifact.encoder_id}; make those with `atlas-ray embed --model {model}`"
        )
    contract = pa.schema([*embeddings(embedded.width), ("image_id", pa.int64()), ("image_uri", pa.string())])
    table = open_table(storage.join(embedded.uri, EMBEDDINGS), contract, columns=COLUMNS)
    return Vectors(embedded.uri, embedded.model_id, replace(table, change=_with_keys))


def _with_keys(table: pa.Table) -> pa.Table:
    """Fill the keys that embeddings do not have."""
    for name, column in keys_without_picture(table["product_id"].to_pylist()).items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
    return table
