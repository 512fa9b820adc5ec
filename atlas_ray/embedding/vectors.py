"""The stage that turns pictures, with their products' texts, into vectors."""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from atlas_ray.embedding.combine import vector_column
from atlas_ray.embedding.encoders import EncoderSource
from atlas_ray.modalities import texts_of
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.runtime.lost_devices import given_up_when_lost
from atlas_ray.runtime.outcomes import ERROR, KEYS, good_rows, keep_answered, with_refusals
from atlas_ray.runtime.progress import tell_block

CARRIED = ("category_path", "split")
"""What the products table says of a product and its embedding repeats."""


class Embed:
    """Holds the model; decodes, too."""

    def __init__(self, progress: Any, source: EncoderSource, config: PredictorConfig) -> None:
        self._progress = progress
        self._predictor = Embedder(source.load(), config)
        self._predictor.warm_up()
        self._texts = texts_of(self._predictor.modalities)

    @given_up_when_lost
    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace `bytes` and texts by `vector`, of which each modality's part has length 1, and `picture_error`."""
        started, decoded_s = time.time(), self._predictor.decode_s
        # A model that reads texts has something to say even if the picture could not be had.
        rows = np.arange(len(table)) if self._texts else good_rows(table)
        asked = table.take(pa.array(rows))
        texts = {name: asked[name].to_pylist() for name in self._texts}
        found, refused = self._predictor.embed(asked["bytes"].to_pylist(), texts)
        vectors = np.zeros((len(table), found.shape[1]), np.float32)
        vectors[rows] = found
        table = with_refusals(table, {int(rows[i]): error for i, error in refused.items()})
        table, picture_error = keep_answered(table, pa.chunked_array([vectors.any(1)]))
        out = table.select([*KEYS, *CARRIED, "etag", *ERROR.names])
        out = out.append_column("vector", vector_column(vectors)).append_column("picture_error", picture_error)
        embedded = out["error_code"].null_count
        tell_block(
            self._progress,
            {"embedded": embedded, "quarantined": len(out) - embedded},
            decode=(started, started + self._predictor.decode_s - decoded_s),
            embed=(started, time.time()),
        )
        return out
