"""The stages that decode pictures and run the model over them."""

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import ItemError
from atlas_ray.images import decode_batch
from atlas_ray.predictors import PREDICTED, PathPredictor, PredictorConfig
from atlas_ray.scoring.outcomes import ERROR, KEYS, OUTCOMES, good_rows, with_errors
from atlas_ray.taxonomy import CategoryPath, Taxonomy


def decode_block(table: pa.Table, image_size_px: int) -> pa.Table:
    """Replace `bytes` by `pixels`, size x size x 3 bytes a picture, for a model elsewhere."""
    good = good_rows(table)
    contents = [table["bytes"][int(i)].as_py() for i in good]
    pixels, refused = decode_batch(contents, image_size_px)
    length = 3 * image_size_px**2
    flat = pa.FixedSizeBinaryArray.from_buffers(pa.binary(length), len(good), [None, pa.py_buffer(pixels.numpy())])
    where = np.full(len(table), -1)
    where[good] = np.arange(len(good))
    out = table.drop_columns(["bytes"]).append_column("pixels", flat.take(pa.array(where, mask=where < 0)))
    return with_errors(out, "decode", {int(good[i]): error for i, error in refused.items()})


@dataclass(frozen=True, kw_only=True)
class PredictorSpec:
    """What a predicting process builds its predictor from."""

    model: str
    taxonomy_json: str
    within: CategoryPath
    config: PredictorConfig
    image_size_px: int

    def build(self) -> PathPredictor:
        """Load the model and prepare it."""
        return PathPredictor(
            load_artifact(self.model),
            self.config,
            taxonomy=Taxonomy.from_json(self.taxonomy_json, source="the scoring run"),
            within=self.within,
        )


class Predict:
    """Holds the model; decodes too, unless a stage before has done so."""

    def __init__(self, board: Any, spec: PredictorSpec) -> None:
        self._board = board
        self._predictor = spec.build()
        size = self._predictor.image_size_px
        warm = torch.zeros((spec.config.batch_size, 3, size, size), dtype=torch.uint8)
        for _ in range(2):
            self._predictor.infer(warm)
        # Ray collects garbage in its workers now and then, which holds the interpreter for as long as
        # there are objects to look at: PyTorch's and the model's stay, and need no looking at.
        gc.collect()
        gc.freeze()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Turn a block into `OUTCOMES`."""
        started = time.time()
        predictor = self._predictor
        good = good_rows(table)
        refused: Mapping[int, ItemError] = {}
        if "pixels" in table.column_names:
            size = predictor.image_size_px
            column = table["pixels"].take(pa.array(good)).combine_chunks()
            pixels = np.frombuffer(column.buffers()[1], np.uint8)[: len(good) * 3 * size**2]
            predicted = predictor.predict(torch.from_numpy(pixels.copy()).view(-1, 3, size, size))
        else:
            predicted, refused = predictor(table["bytes"].take(pa.array(good)).to_pylist())
        where = np.full(len(table), -1)
        where[good] = np.arange(len(good))
        predicted = predicted.take(pa.array(where, mask=where < 0))
        columns = {name: table[name] for name in (*KEYS, "sha256", *ERROR.names)}
        columns |= {name: predicted[name] for name in PREDICTED}
        columns["model_id"] = pa.repeat(pa.scalar(predictor.model_id), len(table))
        columns["taxonomy_id"] = pa.repeat(pa.scalar(predictor.taxonomy.id), len(table))
        out = pa.table(columns).select(OUTCOMES.names).cast(OUTCOMES)
        out = with_errors(out, "decode", {int(good[i]): error for i, error in refused.items()})
        failed = len(out) - out["error_code"].null_count
        self._board.add.remote({"scored": len(out) - failed, "quarantined": failed})
        self._board.span.remote("predict", started, time.time())
        return out
