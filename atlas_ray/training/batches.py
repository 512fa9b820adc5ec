"""A worker's share of the examples, batch by batch, on its device."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Any]


@dataclass
class Examples:
    """A batch on the device."""

    inputs: Tensor
    """(batch, ...): pictures (3, size, size) uint8, or words (length,) int32."""
    labels: Tensor
    """(batch,) positions of leaves, or (batch, labels) bool, the labels that each example has."""
    usable: Tensor
    """(batch,) float32: 1, or 0 for an example that only fills a place."""


class Batches:
    """The epochs of one dataset shard.

    A picture that could not be decoded is replaced by another one of weight 0, and so is a whole batch if the shard
    ends early. So every worker takes every step with batches of one shape, and none waits for one that ran out.
    """

    def __init__(self, shard: Any, *, blank: tuple[Tensor, Tensor], device: torch.device) -> None:
        """Prepare to read a shard.

        Args:
            shard: A dataset shard of Ray Train, with the columns `inputs`, `label`, `name` and `refused`.
            blank: The input and the label of an example that only fills a place.
            device: The device of the batches.
        """
        self._shard = shard
        self._blank_example = blank
        self._device = device
        self._pool = ThreadPoolExecutor(1, "next-epoch")
        self._begun: Future[tuple[Iterator[Batch], Batch | None]] | None = None
        self.refused: dict[str, str] = {}
        """The reason for each example that could not be used."""

    def begin(self, batch_size: int) -> None:
        """Start the stream of the next epoch in the background, for example while validation runs."""
        self._begun = self._pool.submit(self._open, batch_size)

    def _open(self, batch_size: int) -> tuple[Iterator[Batch], Batch | None]:
        stream = iter(self._shard.iter_batches(batch_size=batch_size, batch_format="numpy", prefetch_batches=2))
        return stream, next(stream, None)

    def steps(self, batch_size: int, count: int) -> Iterator[Examples]:
        """Yield `count` batches of `batch_size`; the rest of the epoch is dropped."""
        last = self._blank(batch_size)
        taken = 0
        for batch in self._stream(batch_size):
            if taken == count or len(batch["label"]) < batch_size:
                continue  # read to the end: a stream abandoned halfway would keep its decoding tasks
            last = self._place(batch)
            taken += 1
            yield last
        last = replace(last, usable=torch.zeros_like(last.usable))
        for _ in range(count - taken):
            yield last

    def all(self, batch_size: int) -> Iterator[Examples]:
        """Yield the whole epoch once."""
        for batch in self._stream(batch_size):
            yield self._place(batch)

    def _stream(self, batch_size: int) -> Iterator[Batch]:
        begun, self._begun = self._begun, None
        stream, first = begun.result() if begun else self._open(batch_size)
        if first is not None:
            yield first
            yield from stream

    def _place(self, batch: Batch) -> Examples:
        good = batch["refused"] == ""
        inputs, labels = torch.from_numpy(batch["inputs"]), torch.from_numpy(batch["label"])
        if not good.all():
            bad = np.flatnonzero(~good)
            self.refused |= {str(batch["name"][i]): str(batch["refused"][i]) for i in bad}
            if good.any():
                fill = np.resize(np.flatnonzero(good), len(bad))
                inputs, labels = inputs.clone(), labels.clone()
                inputs[bad], labels[bad] = inputs[fill], labels[fill]
        return Examples(*map(self._move, (inputs, labels, torch.from_numpy(good.astype(np.float32)))))

    def _move(self, tensor: Tensor) -> Tensor:
        # From memory that is locked a GPU copies by itself, while the host goes on.
        tensor = tensor.pin_memory() if self._device.type == "cuda" else tensor
        return tensor.to(self._device, non_blocking=True)

    def _blank(self, batch_size: int) -> Examples:
        inputs, labels = (one.expand(batch_size, *one.shape).to(self._device) for one in self._blank_example)
        return Examples(inputs, labels, torch.zeros(batch_size, device=self._device))
