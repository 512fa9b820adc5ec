"""Predictors, which give batches of pictures and texts the columns of predictions.

Scoring, evaluation and serving use the same predictors. They do not know of Ray.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import scatter
from atlas_ray.artifacts import Artifact
from atlas_ray.errors import NOT_A_NUMBER, ItemError
from atlas_ray.modalities import Texts
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.networks import Inference, build_inference
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.taxonomy import CategoryPath, Taxonomy


class Predictor(Embedder):
    """A model that answers about batches of products, with paths or with labels."""

    columns: tuple[str, ...]
    """The columns of the predictions table that it fills."""
    answer: str
    """The column that is null for a product without an answer."""
    taxonomy: Taxonomy
    """The taxonomy of its answers."""
    search: str | None = None
    """How paths are searched; None for labels."""
    explains: bool = False
    """Whether the model can tell where in the picture it looked."""
    _encoder: Inference

    def __init__(self, artifact: Artifact, config: PredictorConfig | None = None) -> None:
        """Prepare a model for inference; the artifact's network is changed.

        Raises:
            ConfigError: if the machine does not have the device.
        """
        super().__init__(artifact, config, build=build_inference)

    def __call__(
        self, contents: Sequence[bytes | None], texts: Texts | None = None
    ) -> tuple[pa.Table, dict[int, ItemError]]:
        """Decode and predict; while a GPU runs the model on one batch, the next one is decoded.

        Args:
            contents: The file of each picture; None for a product without one.
            texts: The texts that the model reads, one for each of `contents`.

        Returns:
            A table of `columns` with a row for each of `contents`, and errors by index. A row is null if the product
            has none of the model's modalities, or if its answer is NaN or infinite, which is an error.
        """
        refused: dict[int, ItemError] = {}
        answers: list[Any] = []
        rows: list[int] = []
        for good, products in self._batches(contents, texts or {}, refused):
            rows += good
            answers.append(self.infer(products))
        table = self.table(answers)
        for place in np.flatnonzero(table[self.answer].is_null().to_numpy()):
            refused.setdefault(rows[place], NOT_A_NUMBER)
        if len(rows) < len(contents):
            table = scatter(table, np.array(rows, np.int64), len(contents))
        return table, refused

    def predict(self, products: Products) -> pa.Table:
        """Predict for decoded products, each of which the model can answer.

        Returns:
            A table of `columns`; a row is null if its answer is NaN or infinite.
        """
        return self.table([self.infer(batch) for batch in products.split(self.batch_size)])

    def _run(self, products: Products) -> Any:
        return self.infer(products)

    @abstractmethod
    def infer(self, products: Products) -> Any:
        """Run the network over a batch of decoded products, and return what `table` takes.

        Raises:
            ConfigError: if the device has no memory for half a batch.
        """

    @abstractmethod
    def table(self, answers: Sequence[Any]) -> pa.Table:
        """Turn the answers to batches into a table of `columns`."""

    @abstractmethod
    def narrowed(self, within: CategoryPath) -> Any:
        """Return the part of the answers at and below a node of the taxonomy; () for all.

        Raises:
            TaxonomyError: if there is none.
        """

    @abstractmethod
    def predict_within(self, products: Products, scopes: Sequence[Any]) -> pa.Table:
        """Predict for decoded products, each in a scope of its own; the network takes them together.

        Args:
            products: Products that the model can answer.
            scopes: The scope of each product, from `narrowed`.
        """
