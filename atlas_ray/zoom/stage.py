"""The stage that decodes pictures and tells how likely each is zoomed."""

import gc
import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from atlas_ray.arrays import or_null, row_at
from atlas_ray.artifacts import load_zoom_artifact
from atlas_ray.errors import NOT_A_NUMBER, ItemError
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.pictures import decode_batch_at, decoding_pool
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.runtime.lost_devices import given_up_when_lost
from atlas_ray.runtime.outcomes import ERROR, KEYS, READ, good_rows, with_refusals
from atlas_ray.runtime.progress import tell_block
from atlas_ray.zoom.choose import ZOOMED

OUTCOMES = pa.unify_schemas([ZOOMED, READ, ERROR])


class JudgeZoom:
    """Holds the zoom filter."""

    def __init__(
        self,
        progress: Any,
        *,
        model: str,
        device: str,
        precision: str,
        batch_size: int | None,
        engine: str,
        threads: int,
        limits: PictureLimits,
    ) -> None:
        self._progress = progress
        self._limits = limits
        if threads:
            torch.set_num_threads(threads)
        self._predictor = ZoomPredictor(
            load_zoom_artifact(model), device=device, precision=precision, batch_size=batch_size, engine=engine
        )
        self._predictor.warm_up()
        gc.collect()
        gc.freeze()  # PyTorch's objects stay, and need no looking at whenever Ray collects garbage

    @given_up_when_lost
    def __call__(self, table: pa.Table) -> pa.Table:
        """Turn a block of fetched pictures into `OUTCOMES`."""
        started = time.time()
        good = good_rows(table)
        contents = table["bytes"].take(pa.array(good)).to_pylist()
        sizes = (self._predictor.image_size_px,)
        decoded = decode_batch_at(contents, sizes, limits=self._limits, pool=decoding_pool())
        decoded_at = time.time()
        probability = self._predictor(decoded.pixels[0])
        refused: dict[int, ItemError] = {int(place): NOT_A_NUMBER for place in np.flatnonzero(np.isnan(probability))}
        refused |= decoded.refused
        answered = np.delete(np.arange(len(good)), sorted(refused))
        rows = or_null(row_at(good[answered], len(table), answered))
        columns = {name: table[name] for name in (*KEYS, *READ.names, *ERROR.names)}
        columns |= {
            "width": pa.array(decoded.width_px).take(rows),
            "height": pa.array(decoded.height_px).take(rows),
            "zoomed_probability": pa.array(probability).take(rows),
        }
        out = pa.table(columns).select(OUTCOMES.names).cast(OUTCOMES)
        out = with_refusals(out, {int(good[i]): error for i, error in refused.items()})
        failed = len(out) - out["error_code"].null_count
        tell_block(
            self._progress,
            {"looked at": len(out) - failed, "quarantined": failed},
            decode=(started, decoded_at),
            judge=(started, time.time()),
        )
        return out
