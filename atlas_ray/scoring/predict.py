"""The stages that decode pictures and run the model over them."""

import gc
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from atlas_ray.arrays import first_of_each, matrix, numbered, or_null, row_at, scatter
from atlas_ray.artifacts import load_artifact, load_zoom_artifact
from atlas_ray.errors import NOT_A_NUMBER, ItemError, PictureError
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.pictures import decode_batch_at, decoding_pool
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.engines import AUTO, PLAIN
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.prediction.predictor import Predictor
from atlas_ray.prediction.predictors import build_predictor
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.runtime.lost_devices import given_up_when_lost
from atlas_ray.runtime.outcomes import (
    ERROR,
    KEYS,
    READ,
    good_rows,
    keep_answered,
    pictured_rows,
    with_errors,
    with_refusals,
)
from atlas_ray.runtime.progress import tell_block
from atlas_ray.schemas import texts_ids
from atlas_ray.scoring.outcomes import FILTER_STAGE, OUTCOMES
from atlas_ray.scoring.thresholds import TextsAlone
from atlas_ray.taxonomy import CategoryPath, Taxonomy


def decode_block(
    table: pa.Table, sizes_px: Sequence[int], limits: PictureLimits, pool: Executor | None = None
) -> pa.Table:
    """Replace `bytes` by a column of pixels for each size, size x size x 3 bytes a picture.

    In the pool's threads if one is given; a stage of its own is a task of one CPU.
    """
    good = pictured_rows(table)
    batch = decode_batch_at(table["bytes"].take(pa.array(good)).to_pylist(), sizes_px, limits=limits, pool=pool)
    rows = or_null(row_at(good, len(table)))
    out = table.drop_columns(["bytes"])
    for size, pixels in zip(sizes_px, batch.pixels, strict=True):
        buffers = [None, pa.py_buffer(pixels.numpy())]
        flat = pa.FixedSizeBinaryArray.from_buffers(pa.binary(3 * size**2), len(good), buffers)
        out = out.append_column(f"pixels_{size}", flat if len(good) == len(table) else flat.take(rows))
    return with_errors(out, "decode", {int(good[i]): error for i, error in batch.refused.items()})


@dataclass(frozen=True, kw_only=True)
class PredictorSpec:
    """What a predicting process builds its predictors from."""

    model: str
    taxonomy_json: str
    within: CategoryPath
    config: PredictorConfig
    sizes_px: tuple[int, ...]
    """What pictures are decoded to: the model's size, and the zoom filter's if it is another."""
    zoom_model: str | None
    zoom_threshold: float | None
    zoom_engine: str = PLAIN
    texts: tuple[str, ...] = ()
    """What the model reads beside pictures: title, description."""
    paths: bool = True
    """Whether it answers with paths; otherwise with labels."""
    texts_alone: TextsAlone | None = None
    """When the texts alone answer, and no picture is read; None if all are."""

    def build(self) -> Predictor:
        """Load the model and prepare it."""
        return build_predictor(
            load_artifact(self.model, target=None),
            self.config,
            taxonomy=Taxonomy.from_json(self.taxonomy_json, source="the scoring run"),
            within=self.within,
        )

    def build_zoom(self) -> ZoomPredictor | None:
        """Load the zoom filter, if there is one."""
        if self.zoom_model is None:
            return None
        config, zoom = self.config, load_zoom_artifact(self.zoom_model)
        return ZoomPredictor(
            zoom,
            device=config.device,
            precision=config.precision,
            batch_size=config.batch_size,
            engine=self.zoom_engine,
        )


def engine_of_zoom(wanted: str, compiled: Collection[str]) -> str:
    """Return the engine of a zoom filter beside a model of the wanted one: it may be compiled for others, or none."""
    return wanted if wanted in (PLAIN, *compiled) else AUTO


class Predict:
    """Holds the model, and the zoom filter; decodes too, unless a stage before has done so."""

    def __init__(self, progress: Any, spec: PredictorSpec) -> None:
        self._progress = progress
        self._spec = spec
        self._predictor, self._zoom = spec.build(), spec.build_zoom()
        self._predictor.warm_up()
        if self._zoom is not None:
            self._zoom.warm_up()
        # Ray collects garbage in its workers now and then, which holds the interpreter for as long as
        # there are objects to look at: PyTorch's and the model's stay, and need no looking at.
        gc.collect()
        gc.freeze()

    @given_up_when_lost
    def __call__(self, table: pa.Table) -> pa.Table:
        """Turn a block into `OUTCOMES`."""
        started = time.time()
        predictor, zoom = self._predictor, self._zoom
        decoded_s, zoom_decoded = predictor.decode_s, started
        columns: dict[str, Any] = {}
        if zoom is not None and "bytes" in table.column_names:
            config = self._spec.config
            table = decode_block(table, self._spec.sizes_px, config.limits, decoding_pool(config.decode_threads))
            zoom_decoded = time.time()
        if zoom is not None:
            table, columns["zoomed_probability"] = self._filtered(table, zoom)
        # A model that reads texts has something to say even if the picture could not be had.
        rows = _pictured_first(table, _not_filtered(table)) if self._spec.texts else good_rows(table)
        texts = {name: table[name].take(pa.array(rows)).to_pylist() for name in self._spec.texts}
        refused: Mapping[int, ItemError] = {}
        if "bytes" in table.column_names:
            predicted, refused = predictor(table["bytes"].take(pa.array(rows)).to_pylist(), texts)
        else:
            predicted, refused = self._decoded(table, rows, texts)
        predicted = scatter(predicted, rows, len(table))
        table = with_refusals(table, {int(rows[i]): error for i, error in refused.items()})
        table, columns["picture_error"] = keep_answered(table, predicted[predictor.answer].is_valid())
        if self._spec.texts:
            columns["texts_id"] = pa.array(texts_ids([table[name].to_pylist() for name in self._spec.texts]))
        out = _outcomes(table, predicted, predictor, columns)
        scored = out["error_code"].null_count
        filtered = pc.sum(pc.equal(out["stage"], FILTER_STAGE)).as_py() or 0
        tell_block(
            self._progress,
            {"scored": scored, "filtered": filtered, "quarantined": len(out) - scored - filtered},
            decode=(started, zoom_decoded + predictor.decode_s - decoded_s),
            predict=(started, time.time()),
        )
        return out

    def _decoded(
        self, table: pa.Table, rows: Any, texts: Mapping[str, Sequence[str | None]]
    ) -> tuple[pa.Table, dict[int, ItemError]]:
        """Predict for rows whose pictures are decoded, as the predictor does for files."""
        predictor, size = self._predictor, self._predictor.image_size_px
        seen = np.isin(rows, pictured_rows(table))
        if size and seen.all():
            pixels = _pixels(table, rows, size)
        else:
            pixels = torch.zeros((len(rows), 3, size, size), dtype=torch.uint8)
            if size:
                pixels[torch.from_numpy(seen)] = _pixels(table, rows[seen], size)
        products = Products(pixels, texts, None if seen.all() else torch.from_numpy(seen))
        good = predictor.answerable(products)
        predicted = predictor.predict(products if len(good) == len(rows) else products.take(good))
        nulls = np.flatnonzero(predicted[predictor.answer].is_null().to_numpy())
        return scatter(predicted, np.array(good, int), len(rows)), {good[place]: NOT_A_NUMBER for place in nulls}

    def _filtered(self, table: pa.Table, zoom: ZoomPredictor) -> tuple[pa.Table, pa.Array]:
        """Give up the zoomed pictures of a block, but for the least zoomed of a product that has no other in it.

        Returns:
            The block, and (rows,) the probabilities, null if the picture could not be had.
        """
        good = pictured_rows(table)
        found = zoom(_pixels(table, good, zoom.image_size_px))
        threshold = self._spec.zoom_threshold
        assert threshold is not None
        product = numbered(table["product_id"])[1][good]
        wrong = np.isnan(found)
        # Each product's least zoomed one stays, which is normal if any of them is.
        gone = (found >= threshold) & ~first_of_each(product, found)
        errors = {
            int(row): PictureError("zoomed", f"zoomed with probability {p:.4f}, {threshold:.4f} or more")
            for row, p in zip(good[gone], found[gone], strict=True)
        }
        probability = np.full(len(table), np.nan, np.float32)
        probability[good] = found
        table = with_refusals(table, {int(row): NOT_A_NUMBER for row in good[wrong]})
        return with_errors(table, FILTER_STAGE, errors), pa.array(probability, mask=np.isnan(probability))


class PredictVectors:
    """Holds a head, and answers from vectors."""

    def __init__(self, progress: Any, spec: PredictorSpec) -> None:
        self._progress = progress
        predictor = spec.build()
        assert isinstance(predictor, PathPredictor)  # a head's
        self._predictor = predictor

    @given_up_when_lost
    def __call__(self, table: pa.Table) -> pa.Table:
        """Turn a block of `atlas_ray.scoring.vectors.COLUMNS` into `OUTCOMES`."""
        started = time.time()
        predicted = self._predictor.predict_vectors(torch.tensor(matrix(table["vector"])))
        missing = np.flatnonzero(predicted["category_path"].is_null().to_numpy())
        table = with_errors(table, "predict", {int(row): NOT_A_NUMBER for row in missing})
        out = _outcomes(table, predicted, self._predictor, {"picture_error": table["picture_error"]})
        counts = {"scored": len(out) - len(missing), "quarantined": len(missing)}
        tell_block(self._progress, counts, predict=(started, time.time()))
        return out


def _outcomes(
    table: pa.Table, predicted: pa.Table, predictor: Predictor, columns: Mapping[str, pa.ChunkedArray]
) -> pa.Table:
    """Return the `OUTCOMES` of a block.

    Args:
        table: The block, with `KEYS` and errors.
        predicted: The predictor's columns.
        predictor: What made them.
        columns: Further columns; null where a column is in none of these.
    """
    same = {"model_id": predictor.model_id, "taxonomy_id": predictor.taxonomy.id}
    known = {
        **{name: table[name] for name in (*KEYS, *READ.names, *ERROR.names) if name in table.column_names},
        **{name: predicted[name] for name in predictor.columns},
        **{name: pa.repeat(pa.scalar(value), len(table)) for name, value in same.items()},
        **columns,
    }
    missing = {field.name: pa.nulls(len(table), field.type) for field in OUTCOMES if field.name not in known}
    return pa.table({**known, **missing}).select(OUTCOMES.names).cast(OUTCOMES)


def _not_filtered(table: pa.Table) -> Any:
    return np.flatnonzero(~pc.equal(table["stage"], FILTER_STAGE).fill_null(False).to_numpy())


def _pictured_first(table: pa.Table, rows: Any) -> Any:
    """Return rows in an order in which those with a picture fill batches of their own."""
    return rows[np.argsort(~np.isin(rows, pictured_rows(table)), kind="stable")]


def _pixels(table: pa.Table, rows: Any, size_px: int) -> torch.Tensor:
    """Return the decoded pictures of some rows, (rows, 3, size, size) uint8; not to be written to.

    Of a whole block they are the bytes of the block, without a copy.
    """
    column = table[f"pixels_{size_px}"]
    if not np.array_equal(rows, np.arange(len(table))):
        column = column.take(pa.array(rows))
    column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = 3 * size_px**2
    pixels = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * width :][: len(rows) * width]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels).view(-1, 3, size_px, size_px)
