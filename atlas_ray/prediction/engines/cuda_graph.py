"""A CUDA graph: all operations of an encoder are launched at once, where launching each takes longer than it does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WARM_UPS = 3
"""Runs before a capture, in which libraries choose their algorithms and get their memory."""


def captured(encoder: nn.Module, image_size_px: int) -> Callable[[Tensor], Tensor]:  # noqa: ARG001
    """Capture the encoder once for each size of batch, which share their memory; few sizes are asked for."""
    pool: Any = torch.cuda.graph_pool_handle()
    captures: dict[tuple[int, ...], tuple[Any, Tensor, Tensor]] = {}

    def run(pictures: Tensor) -> Tensor:
        shape = tuple(pictures.shape)
        if shape not in captures:
            captures[shape] = _capture(encoder, pictures, pool)
        graph, inputs, features = captures[shape]
        inputs.copy_(pictures)
        graph.replay()
        return features.clone()  # the next replay writes to the same place

    return run


def _capture(encoder: nn.Module, pictures: Tensor, pool: Any) -> tuple[Any, Tensor, Tensor]:
    """Return the graph for pictures of a shape, where it reads them, and where it writes their features."""
    inputs = pictures.clone()
    # A capture must not be the first run, and the runs before it not in the stream that other work waits for.
    stream: Any = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            encoder(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        features: Tensor = encoder(inputs)
    return graph, inputs, features
