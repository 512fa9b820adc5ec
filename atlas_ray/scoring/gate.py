"""The gate of a cascade, which tells the products that the texts alone are sure enough about.

It works in the processes that fetch pictures, on the CPU.
"""

import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import Booleans
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.engines import PLAIN
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.scoring.predict import PredictorSpec


class TextGate:
    """Holds the model, and asks it about texts alone; a `atlas_ray.runtime.fetch.Gate`."""

    def __init__(self, spec: PredictorSpec) -> None:
        """Load the model; its picture encoder is never run, so that no engine prepares it."""
        assert spec.texts_alone is not None
        predictor = replace(spec, config=replace(spec.config, device="cpu", threads=1, engine=PLAIN)).build()
        assert isinstance(predictor, PathPredictor)
        self._predictor, self._texts, self._threshold = predictor, spec.texts, spec.texts_alone.threshold
        self._one_block = threading.Lock()  # blocks are fetched side by side, and texts need no second core for that

    def __call__(self, table: pa.Table) -> Booleans:
        """Return the rows whose texts alone give a leaf that is sure enough, (rows,) bool."""
        products = Products.of_texts({name: table[name].to_pylist() for name in self._texts})
        kept = self._predictor.answerable(products)
        sure = [np.zeros(0, bool)]
        with self._one_block:
            for batch in products.take(kept).split(self._predictor.batch_size):
                found = self._predictor.infer(batch)
                sure.append(((found.probability[:, 0] >= self._threshold) & found.finite).numpy())
        spared = np.zeros(len(table), bool)
        spared[kept] = np.concatenate(sure)
        return spared
