"""Predictions of the zoom filter, which give batches of decoded pictures a probability. It does not know of Ray."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_ray.artifacts import ZoomArtifact
from atlas_ray.prediction.device import FittingBatches, choose_device, choose_dtype
from atlas_ray.prediction.engines import AUTO, run_encoder
from atlas_ray.prediction.feeding import feeding_of


class ZoomPredictor:
    """A model that predicts whether pictures are zoomed.

    Attributes:
        image_size_px: The side of the pictures that it reads.
        threshold: The lowest probability of a picture that counts as zoomed.
        model_id: The content id of its artifact.
    """

    def __init__(
        self,
        artifact: ZoomArtifact,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        engine: str = AUTO,
    ) -> None:
        """Prepare a filter; the artifact's network is changed.

        Args:
            artifact: The filter.
            device: cpu, cuda, cuda:N or auto.
            precision: float32, bfloat16 or auto.
            batch_size: The number of pictures in a batch of the network; None for what suits the device.
            engine: One of `ENGINE_CHOICES`.

        Raises:
            ConfigError: if the machine does not have the device, or the engine does not run there.
        """
        self.model_id = artifact.id
        self.image_size_px = artifact.model.config.image_size_px
        self.threshold = artifact.model.config.threshold
        self._device = choose_device(device)
        self._feeding = feeding_of(self._device.type)
        self.batch_size = batch_size or self._feeding.zoom_batch_size
        self._fitting = FittingBatches(self.batch_size)
        network = artifact.model.eval().requires_grad_(False)
        network.to(self._device, choose_dtype(precision, self._device)).to(memory_format=torch.channels_last)
        self._run = run_encoder(engine, network, self.image_size_px, artifact.compiled)

    def warm_up(self) -> None:
        """Run the network over batches of all sizes that it should be ready for, the largest first."""
        size = self.image_size_px
        for count in self._feeding.warm_sizes(self.batch_size):
            self(torch.zeros((count, 3, size, size), dtype=torch.uint8))

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> NDArray[np.float32]:
        """Return the probability of being zoomed, (count,), of pictures (count, 3, size, size) uint8.

        It is NaN if the network's result is not finite.

        Raises:
            ConfigError: if the device has no memory for half a batch.
        """
        if not len(pictures):
            return np.zeros(0, np.float32)
        logits = [
            part
            for batch in pictures.split(self.batch_size)
            for part in self._fitting.run(batch, lambda some: self._run(some.to(self._device, non_blocking=True)))
        ]
        found = torch.cat(logits).float()
        return found.sigmoid().where(found.isfinite(), torch.nan).cpu().numpy()
