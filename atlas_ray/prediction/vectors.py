"""Vectors of products: a network that turns batches of pictures and texts into them. It does not know of Ray."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_ray.artifacts import Network
from atlas_ray.errors import NOT_A_NUMBER, ItemError, PictureError
from atlas_ray.modalities import PICTURE, Texts, texts_of
from atlas_ray.modalities.pictures import decode_batch, decoding_pool
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.device import FittingBatches, choose_device, choose_dtype
from atlas_ray.prediction.engines import choose_engine
from atlas_ray.prediction.feeding import feeding_of
from atlas_ray.prediction.networks import Encoder, build_encoder
from atlas_ray.prediction.settings import PredictorConfig


class Embedder:
    """A network that turns batches of products into vectors."""

    def __init__(
        self,
        network: Network,
        config: PredictorConfig | None = None,
        *,
        build: Callable[[Any, torch.device, torch.dtype, str], Encoder] = build_encoder,
    ) -> None:
        """Prepare a network; it is changed.

        Args:
            network: The network.
            config: The settings of inference.
            build: The function that prepares it for a device.

        Raises:
            ConfigError: if the machine does not have the device.
        """
        self.config = config = config or PredictorConfig()
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.precision, self.device)
        self.model_id = network.id
        self.feature_widths = network.feature_widths
        self._take_threads()  # an engine that has threads of its own takes as many
        self.engine = choose_engine(config.engine, self.device, network.engines)
        """What runs the picture encoder."""
        self._encoder = build(network, self.device, self.dtype, self.engine)
        self._feeding = feeding_of(self.device.type)
        self.batch_size = config.batch_size or self._feeding.batch_size
        self._fitting = FittingBatches(self.batch_size)
        self._pool = decoding_pool(config.decode_threads)
        self.decode_s = 0.0
        """The seconds that decoding has taken so far; on a GPU the model runs meanwhile."""
        self._ahead = ThreadPoolExecutor(1, "decode-ahead") if self._feeding.decodes_ahead else None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model reads: picture, title, description."""
        return self._encoder.modalities

    @property
    def image_size_px(self) -> int:
        """The side of the square that pictures are resized to; 0 if the model reads none."""
        return self._encoder.image_size_px

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run the network over batches of all sizes that it should be ready for, the largest first."""
        size = self.image_size_px
        for count in self._feeding.warm_sizes(self.batch_size):
            texts = {name: ["warm"] * count for name in texts_of(self.modalities)}
            self._run(Products(torch.zeros((count, 3, size, size), dtype=torch.uint8), texts))

    def _run(self, products: Products) -> Any:
        """Run the network over a batch, as this predictor does."""
        return self._vectors(products)

    def decode(self, contents: Sequence[bytes]) -> tuple[Tensor, dict[int, PictureError]]:
        """Decode pictures to (count, 3, size, size) uint8; return them, and the errors by index."""
        return decode_batch(contents, self.image_size_px, limits=self.config.limits, pool=self._pool)

    def embed(
        self, contents: Sequence[bytes | None], texts: Texts | None = None
    ) -> tuple[NDArray[np.float32], dict[int, ItemError]]:
        """Decode, and return the vectors that products are compared by, as `Encoder.vectors`.

        Args:
            contents: As `PathPredictor` takes them.
            texts: As `PathPredictor` takes them.

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
        size = self.batch_size
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
        pictures, errors = self.decode([content or b"" for content in batch])
        if self.device.type == "cuda":
            pictures = pictures.pin_memory()  # here, beside the model, so that its copy to the GPU waits for nothing
        self.decode_s += time.perf_counter() - started
        return pictures, errors

    def answerable(self, products: Products) -> list[int]:
        """Return the products that have a modality of the model."""
        if products.seen is None and PICTURE in self.modalities:
            return list(range(len(products)))
        return products.present(self.modalities).any(1).nonzero()[:, 0].tolist()

    @torch.inference_mode()
    def _vectors(self, products: Products) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the products' vectors, 0 for those with a number that is NaN or infinite, and which are finite."""
        self._take_threads()
        vectors = torch.cat(self._fitting.run(products, self._encoder.vectors))  # (batch, width)
        finite = vectors.isfinite().all(1)
        return vectors.masked_fill(~finite[:, None], 0.0).cpu().numpy(), finite.cpu().numpy()

    def _take_threads(self) -> None:
        if self.config.threads:  # OpenMP keeps this setting for each calling thread
            torch.set_num_threads(self.config.threads)
