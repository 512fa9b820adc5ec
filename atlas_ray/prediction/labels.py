"""Predictions of labels, each by itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from atlas_ray.artifacts import Artifact
from atlas_ray.errors import TaxonomyError
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.label_lists import label_columns, listed_labels
from atlas_ray.prediction.predictor import Predictor
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.schemas import LABELS
from atlas_ray.taxonomy import CategoryPath


class LabelPredictor(Predictor):
    """A model that predicts the labels of batches of products."""

    columns, answer = tuple(field.name for field in LABELS), "labels"

    def __init__(self, artifact: Artifact, config: PredictorConfig | None = None) -> None:
        """Prepare a model for inference; the artifact's network is changed.

        Raises:
            ConfigError: if the machine does not have the device.
        """
        super().__init__(artifact, config)
        assert artifact.labels is not None
        self.taxonomy = artifact.taxonomy
        self._names = pa.array(artifact.labels.names, pa.string())
        self._thresholds = np.array(artifact.thresholds)

    @torch.inference_mode()
    def infer(self, products: Products) -> Tensor:
        """Return the log-odds of the labels, (batch, N) float32."""
        self._take_threads()
        return torch.cat(self._fitting.run(products, lambda part: self._encoder.logits(self._encoder.encode(part))))

    def table(self, answers: Sequence[Tensor]) -> pa.Table:
        """Turn log-odds into a table of `LABELS`; a picture with one that is NaN or infinite has a row of nulls."""
        schema = pa.schema(LABELS)
        if not answers:
            return schema.empty_table()
        log_odds = torch.cat(list(answers)).float().cpu()  # (pictures, N)
        answered = log_odds.isfinite().all(1).numpy()
        probability = np.where(answered[:, None], log_odds.sigmoid().numpy(), 0)
        means = listed_labels(probability, np.arange(len(probability))).means()
        return pa.table(label_columns(means, self._names, self._thresholds, answered), schema=schema)

    def narrowed(self, within: CategoryPath) -> None:
        """Refuse every part of the taxonomy.

        Raises:
            TaxonomyError: if one is asked for.
        """
        if within:
            raise TaxonomyError("a model of labels names each label by itself, in no part of a taxonomy")

    def predict_within(self, products: Products, scopes: Sequence[Any]) -> pa.Table:  # noqa: ARG002
        """Predict for decoded products, all of them with all labels."""
        return self.predict(products)
