"""The vectors of a finished embedding run, opened to be read in a stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

    def table(self, columns: Sequence[str] | None = None) -> Table:
        """Open the embeddings, of schema `embeddings`."""
        return open_table(storage.join(self.uri, EMBEDDINGS), embeddings(self.width), columns=columns)


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
