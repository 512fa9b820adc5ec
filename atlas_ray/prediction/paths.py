"""Predictions of category paths, which give batches of pictures and texts the columns of predictions.

Scoring, evaluation and serving use the same predictor. It does not know of Ray.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_ray.arrays import scatter
from atlas_ray.artifacts import Artifact
from atlas_ray.decoding import SEARCH_CHOICES, SEARCH_HELP, Posterior, Scope
from atlas_ray.errors import NOT_A_NUMBER, ConfigError, ItemError, PictureError
from atlas_ray.modalities.limits import PictureLimits, min_side_setting
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.modalities.products import PICTURE, Products, Texts
from atlas_ray.prediction.columns import answer_table
from atlas_ray.prediction.device import FittingBatches
from atlas_ray.prediction.engines import ENGINES
from atlas_ray.prediction.networks import build_inference
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy import CategoryPath, Taxonomy
from atlas_ray.taxonomy.vocabulary import PAD

MAX_SCOPES = 64
"""The most parts of the taxonomy that a predictor keeps ready."""
PRECISIONS = ("auto", "float32", "bfloat16")
ENGINE_HELP = "; ".join(f"{name}: {engine.summary}" for name, engine in ENGINES.items())


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(Settings):
    """How a model is run."""

    search: str = setting(SEARCH_HELP, "auto", choices=SEARCH_CHOICES)
    beam_width: int = setting("prefixes that the beam keeps a picture", 5, low=1, high=1000)
    top_k: int = setting("paths kept a picture, the chosen one included", 5, low=1, high=1000)
    precision: str = setting(
        "float32, bfloat16, or auto: bfloat16 if the device computes in it", "auto", choices=PRECISIONS
    )
    batch_size: int = setting("pictures the model takes at once", 32, low=1, high=8192)
    device: str = setting("cpu, cuda, cuda:N or auto", "auto")
    engine: str = setting(ENGINE_HELP, "torch", choices=ENGINES)
    threads: int = setting(
        "PyTorch threads on the CPU; 0: its own choice, or in a scoring run the cores shared among the workers",
        0,
        low=0,
        high=1024,
    )
    min_side_px: int = min_side_setting()
    decode_threads: int = setting("threads that decode; 0: one a core, at most 16", 0, low=0, high=256)

    @property
    def limits(self) -> PictureLimits:
        """The limits of pictures."""
        return PictureLimits(min_side_px=self.min_side_px)


def choose_device(wanted: str) -> torch.device:
    """Return the device of a name; of `auto` the GPU if there is one.

    Raises:
        ConfigError: for an invalid name, or a device that the machine does not have.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigError(f"device {wanted!r}; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {wanted!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the number format of a name; of `auto` bfloat16 if the device has instructions for it."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            flags = torch.cpu.get_capabilities()
            native = bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


class PathPredictor:
    """A model that predicts the category paths of batches of products."""

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
        self.config = config = config or PredictorConfig()
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.precision, self.device)
        self.model_id = artifact.id
        self.feature_widths = artifact.feature_widths
        self._vocabulary = artifact.vocabulary
        self._trained_on = None if artifact.spells else artifact.taxonomy
        taxonomy = taxonomy or artifact.taxonomy
        self.scope = self._scope_of(taxonomy.within(within) if within else taxonomy)
        self._narrowed: dict[CategoryPath, Scope] = {}
        self._inference = build_inference(artifact, self.device, self.dtype, config.engine)
        self._fitting = FittingBatches(config.batch_size)
        threads = config.decode_threads or min(os.cpu_count() or 1, 16)
        # Otherwise each of these threads starts OpenMP threads to resize, which then spin beside the model's.
        self._pool = ThreadPoolExecutor(threads, "decode", initializer=torch.set_num_threads, initargs=(1,))
        # On a CPU the model keeps every core busy, and a thread that decodes meanwhile makes all of them wait at the
        # next barrier. So there the batches take turns.
        self.decode_s = 0.0
        """The seconds that decoding has taken so far; on a GPU the model runs meanwhile."""
        self._ahead = ThreadPoolExecutor(1, "decode-ahead") if self.device.type == "cuda" else None

    @property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy of the predictions."""
        return self.scope.taxonomy

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model reads: picture, title, description."""
        return self._inference.modalities

    @property
    def image_size_px(self) -> int:
        """The side of the square that pictures are resized to; 0 if the model reads none."""
        return self._inference.image_size_px

    @property
    def explains(self) -> bool:
        """Whether the model can tell where in the picture it looked."""
        return self._inference.attends

    @property
    def proposes(self) -> bool:
        """Whether the model can spell paths that are not in the taxonomy."""
        return self._inference.proposes

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

    def decode(self, contents: Sequence[bytes]) -> tuple[Tensor, dict[int, PictureError]]:
        """Decode pictures to (count, 3, size, size) uint8; return them, and the errors by index."""
        return decode_batch(contents, self.image_size_px, limits=self.config.limits, pool=self._pool)

    def __call__(
        self, contents: Sequence[bytes | None], texts: Texts | None = None
    ) -> tuple[pa.Table, dict[int, ItemError]]:
        """Decode and predict; while a GPU runs the model on one batch, the next one is decoded.

        Args:
            contents: The file of each picture; None for a product without one.
            texts: The texts that the model reads, one for each of `contents`.

        Returns:
            A table of `COLUMNS` with a row for each of `contents`, and errors by index. A row is null if the product
            has none of the model's modalities, or if its answer is NaN or infinite, which is an error.
        """
        refused: dict[int, ItemError] = {}
        posteriors: list[Posterior] = []
        rows: list[int] = []
        for good, products in self._batches(contents, texts or {}, refused):
            rows += good
            posteriors.append(self.infer(products))
        table = answer_table(self.scope, posteriors)
        for place in np.flatnonzero(table["category_path"].is_null().to_numpy()):
            refused.setdefault(rows[place], NOT_A_NUMBER)
        if len(rows) < len(contents):
            table = scatter(table, np.array(rows, np.int64), len(contents))
        return table, refused

    def embed(
        self, contents: Sequence[bytes | None], texts: Texts | None = None
    ) -> tuple[NDArray[np.float32], dict[int, ItemError]]:
        """Decode, and return the vectors that products are compared by, as `Inference.vectors`.

        Args:
            contents: As for a prediction.
            texts: As for a prediction.

        Returns:
            (count, width), and errors by index. A row is 0 if the product has none of the model's modalities, or if a
            number is NaN or infinite, which is an error.
        """
        refused: dict[int, ItemError] = {}
        vectors = np.zeros((len(contents), sum(self.feature_widths)), np.float32)
        for good, products in self._batches(contents, texts or {}, refused):
            vectors[good], finite = self._vectors(products)
            for place in np.flatnonzero(~finite):
                refused.setdefault(good[place], NOT_A_NUMBER)
        return vectors, refused

    def _batches(
        self, contents: Sequence[bytes | None], texts: Texts, refused: dict[int, ItemError]
    ) -> Iterator[tuple[list[int], Products]]:
        """Decode batch after batch: yield the products that the model can answer, and their indices."""
        size = self.config.batch_size
        batches = [contents[start : start + size] for start in range(0, len(contents), size)]
        ahead: Future[tuple[Tensor, dict[int, PictureError]]] | None = None
        for position, batch in enumerate(batches):
            pictures, errors = ahead.result() if ahead else self._decoded(batch)
            ahead = None
            if self._ahead and position + 1 < len(batches):
                ahead = self._ahead.submit(self._decoded, batches[position + 1])
            start = position * size
            refused.update({start + index: error for index, error in errors.items() if batch[index] is not None})
            there = torch.tensor([index not in errors for index in range(len(batch))], dtype=torch.bool)
            part = {name: column[start : start + size] for name, column in texts.items()}
            products = Products(pictures, part, None if not errors else there)
            good = self.answerable(products)
            if good:
                yield [start + index for index in good], products if len(good) == len(batch) else products.take(good)

    def _decoded(self, batch: Sequence[bytes | None]) -> tuple[Tensor, dict[int, PictureError]]:
        if PICTURE not in self.modalities:
            return torch.zeros((len(batch), 0), dtype=torch.uint8), {}
        started = time.perf_counter()
        decoded = self.decode([content or b"" for content in batch])
        self.decode_s += time.perf_counter() - started
        return decoded

    def answerable(self, products: Products) -> list[int]:
        """Return the products that have a modality of the model."""
        if products.seen is None and PICTURE in self.modalities:
            return list(range(len(products)))
        return products.present(self.modalities).any(1).nonzero()[:, 0].tolist()

    def predict(self, products: Products) -> pa.Table:
        """Predict for decoded products, each of which the model can answer.

        Returns:
            A table of `COLUMNS`; a row is null if its answer is NaN or infinite.
        """
        return answer_table(self.scope, [self.infer(batch) for batch in products.split(self.config.batch_size)])

    @torch.inference_mode()
    def predict_within(self, products: Products, scopes: Sequence[Scope]) -> pa.Table:
        """Predict for decoded products, each in a scope of its own; the network takes them together.

        Args:
            products: Products that the model can answer.
            scopes: The scope of each product, from `narrowed`.
        """
        tables, order = [], []
        start = 0
        for batch in products.split(self.config.batch_size):
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
            products: Products with a picture.
            scope: The part of the taxonomy to answer in; None for all of it.

        Returns:
            A table of `COLUMNS`, and maps (count, depth, rows, columns) in float32: that of each level sums to 1, and
            those past a path's end are 0.

        Raises:
            ConfigError: if no encoder-decoder reads the picture, so that there is no attention.
        """
        if not self.explains:
            raise ConfigError(f"model {self.model_id} is no encoder-decoder, whose attention maps say where it looked")
        scope = scope or self.scope
        leaf_tokens = torch.from_numpy(scope.tree.trie.leaf_tokens).to(self.device)
        posteriors, maps = [], []
        for batch in products.split(self.config.batch_size):
            encoded = self._encode(batch)
            posteriors.append(self._search(encoded, scope))
            tokens = leaf_tokens[posteriors[-1].leaf[:, 0]]  # (batch, depth)
            there = (tokens != PAD)[:, :, None, None]
            maps.append((self._inference.maps(batch, encoded, tokens) * there).float().cpu())
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
            raise ConfigError(f"model {self.model_id} is no encoder-decoder, which alone spells paths of its own")
        names = self._vocabulary.tokens
        proposals: list[tuple[CategoryPath, float]] = []
        for batch in products.split(self.config.batch_size):
            said = self._inference.propose(self._encode(batch), width=self.config.beam_width)
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
        found = self._fitting.run(products, lambda part: self._search(self._inference.encode(part), self.scope))
        return Posterior.joined(found)

    @torch.inference_mode()
    def _vectors(self, products: Products) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the products' vectors, 0 for those with a number that is NaN or infinite, and which are finite."""
        self._take_threads()
        vectors = torch.cat(self._fitting.run(products, self._inference.vectors))  # (batch, width)
        finite = vectors.isfinite().all(1)
        return vectors.masked_fill(~finite[:, None], 0.0).cpu().numpy(), finite.cpu().numpy()

    def _encode(self, products: Products) -> Tensor:
        self._take_threads()
        return torch.cat(self._fitting.run(products, self._inference.encode))

    def _take_threads(self) -> None:
        if self.config.threads:  # OpenMP keeps this setting for each calling thread
            torch.set_num_threads(self.config.threads)

    def _search(self, encoded: Tensor, scope: Scope) -> Posterior:
        return self._inference.search(encoded, scope, width=self.config.beam_width, top_k=self.config.top_k)
