"""Predictions of category paths."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from atlas_ray.artifacts import Artifact
from atlas_ray.decoding.posterior import Posterior
from atlas_ray.decoding.scope import Scope
from atlas_ray.errors import ConfigError
from atlas_ray.modalities import PICTURE
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.columns import COLUMNS, answer_table
from atlas_ray.prediction.device import FittingBatches
from atlas_ray.prediction.predictor import Predictor
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.taxonomy import CategoryPath, Taxonomy
from atlas_ray.taxonomy.vocabulary import PAD

__all__ = ["PathPredictor", "PredictorConfig"]

MAX_SCOPES = 64
"""The most parts of the taxonomy that a predictor keeps ready."""
VECTOR_NUMBERS, MAX_VECTOR_ROWS = 2**22, 4096
"""The most logits, and the most products, that are computed at once from vectors."""


class PathPredictor(Predictor):
    """A model that predicts the category paths of batches of products."""

    columns, answer = tuple(COLUMNS), "category_path"

    def __init__(
        self,
        artifact: Artifact,
        config: PredictorConfig | None = None,
        *,
        taxonomy: Taxonomy | None = None,
        within: CategoryPath = (),
    ) -> None:
        """Prepare a model for inference; the artifact's network is changed.

        Args:
            artifact: The model.
            config: The settings of inference.
            taxonomy: The taxonomy to predict in; by default the one that the model was trained on.
            within: The node at or below which to predict.

        Raises:
            TaxonomyError: if the taxonomy has names that the model does not know, or no node `within`.
            ConfigError: if the machine does not have the device.
        """
        super().__init__(artifact, config)
        self._vocabulary = artifact.vocabulary
        self._trained_on = None if artifact.spells else artifact.taxonomy
        taxonomy = taxonomy or artifact.taxonomy
        self.scope = self._scope_of(taxonomy.within(within) if within else taxonomy)
        self.taxonomy, self.search = self.scope.taxonomy, self.scope.search
        self.explains = self._encoder.attends == PICTURE
        self._narrowed: dict[CategoryPath, Scope] = {}

    @property
    def proposes(self) -> bool:
        """Whether the model can spell paths that are not in the taxonomy."""
        return self._encoder.proposes

    def narrowed(self, within: CategoryPath) -> Scope:
        """Return the part of the taxonomy at and below a node; the last ones are cached.

        Raises:
            TaxonomyError: if there is no such node.
        """
        if not within:
            return self.scope
        scope = self._narrowed.pop(within, None) or self._scope_of(self.taxonomy.within(within))
        self._narrowed[within] = scope
        if len(self._narrowed) > MAX_SCOPES:
            del self._narrowed[next(iter(self._narrowed))]
        return scope

    def _scope_of(self, taxonomy: Taxonomy) -> Scope:
        return Scope.of(taxonomy, self._vocabulary, self.device, search=self.config.search, trained_on=self._trained_on)

    def table(self, answers: Sequence[Posterior]) -> pa.Table:
        """Turn the results of searches into a table of `COLUMNS`."""
        return answer_table(self.scope, answers)

    @torch.inference_mode()
    def predict_vectors(self, vectors: Tensor) -> pa.Table:
        """Predict from the vectors of products, with a model that takes them (`Artifact.takes_vectors`).

        Args:
            vectors: (products, width), as its encoder gives them.

        Returns:
            A table of `COLUMNS`; a row is null if its answer is NaN or infinite.
        """
        self._take_threads()
        rows = min(max(VECTOR_NUMBERS // len(self.scope.lengths), 1), MAX_VECTOR_ROWS)
        fitting = FittingBatches(rows)
        parts = vectors.split(rows)
        return self.table([found for part in parts for found in fitting.run(part, self._answer)])

    @torch.inference_mode()
    def predict_within(self, products: Products, scopes: Sequence[Scope]) -> pa.Table:
        """Predict for decoded products, each in a scope of its own, from `narrowed`."""
        tables, order = [], []
        start = 0
        for batch in products.split(self.batch_size):
            encoded = self._encode(batch)
            rows_of: dict[int, list[int]] = {}
            for row in range(len(batch)):
                rows_of.setdefault(id(scopes[start + row]), []).append(row)
            for rows in rows_of.values():
                scope = scopes[start + rows[0]]
                found = self._search(encoded if len(rows_of) == 1 else encoded[rows], scope)
                tables.append(answer_table(scope, [found]))
                order += [start + row for row in rows]
            start += len(batch)
        if not tables:
            return answer_table(self.scope, [])
        return pa.concat_tables(tables).take(pa.array(np.argsort(order)))

    @torch.inference_mode()
    def explain(self, products: Products, scope: Scope | None = None) -> tuple[pa.Table, Tensor]:
        """Predict for decoded products, and return where the decoder looked while it spelled each path.

        Args:
            products: Products with a picture, or for an encoder-decoder of texts with a text.
            scope: The part of the taxonomy to answer in; None for all of it.

        Returns:
            A table of `COLUMNS`, and maps (count, depth, rows, columns) in float32: that of each level sums to 1, and
            those past a path's end are 0. Those of a text have one row, and a column for each word or token.

        Raises:
            ConfigError: if the model has no attention.
        """
        if not self._encoder.attends:
            raise ConfigError(f"model {self.model_id} is no encoder-decoder, whose attention maps say where it looked")
        scope = scope or self.scope
        posteriors, maps = [], []
        for batch in products.split(self.batch_size):
            encoded = self._encode(batch)
            posteriors.append(self._search(encoded, scope))
            tokens = scope.tree.leaf_tokens[posteriors[-1].leaf[:, 0]]  # (batch, depth)
            there = (tokens != PAD)[:, :, None, None]
            maps.append((self._encoder.maps(batch, encoded, tokens) * there).float().cpu())
        return answer_table(scope, posteriors), torch.cat(maps)

    @torch.inference_mode()
    def propose(self, products: Products) -> list[tuple[CategoryPath, float]]:
        """Spell the most probable path of each product, in the taxonomy or not (Atlas, Table 2).

        Args:
            products: Products with a picture.

        Returns:
            The path of each product and its probability; () if no sequence of names came to an end.

        Raises:
            ConfigError: if the model does not spell paths.
        """
        if not self.proposes:
            raise ConfigError(
                f"model {self.model_id} is no encoder-decoder of pictures, which alone spells paths of its own"
            )
        names = self._vocabulary.tokens
        proposals: list[tuple[CategoryPath, float]] = []
        for batch in products.split(self.batch_size):
            said = self._encoder.propose(self._encode(batch), width=self.config.beam_width)
            for tokens, probability in zip(said.tokens[:, 0].tolist(), said.probability[:, 0].tolist(), strict=True):
                path = tuple(names[token] for token in tokens if token != PAD) if probability > 0 else ()
                proposals.append((path, probability))
        return proposals

    @torch.inference_mode()
    def infer(self, products: Products) -> Posterior:
        """Run the network and the search over a batch of decoded products.

        Raises:
            ConfigError: if the device has no memory for half a batch.
        """
        self._take_threads()
        return Posterior.joined(self._fitting.run(products, lambda part: self._answer(self._encoder.encode(part))))

    def _encode(self, products: Products) -> Tensor:
        self._take_threads()
        return torch.cat(self._fitting.run(products, self._encoder.encode))

    def _search(self, encoded: Tensor, scope: Scope) -> Posterior:
        return Posterior.joined(self._fitting.run(encoded, lambda part: self._answer(part, scope)))

    def _answer(self, encoded: Tensor, scope: Scope | None = None) -> Posterior:
        return self._encoder.search(
            encoded.to(self.device), scope or self.scope, width=self.config.beam_width, top_k=self.config.top_k
        )
