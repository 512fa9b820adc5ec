"""Encoders as CUDA graphs, with a stand-in for CUDA: a graph that runs what was called while it was captured."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.prediction.engines import run_encoder
from atlas_ray.prediction.engines.cuda_graph import WARM_UPS, captured
from atlas_ray.prediction.engines.padding import Padded


class Encoder(nn.Module):
    """Counts its calls; a call during a capture makes what the graph replays."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.calls: list[int] = []
        self.capturing: Graph | None = None

    def forward(self, pictures: Tensor) -> Tensor:
        self.calls.append(len(pictures))
        features: Tensor = pictures.float().mean((1, 2, 3)) * self.weight
        if self.capturing is not None:
            self.capturing.again = lambda: features.copy_(pictures.float().mean((1, 2, 3)) * self.weight)
        return features


class Graph:
    again: Callable[[], Any]

    def replay(self) -> None:
        self.again()


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    made = Encoder()

    class Stream:
        def wait_stream(self, _: Any) -> None:
            pass

    @contextlib.contextmanager
    def graph(one: Graph, pool: str) -> Iterator[None]:
        assert pool == "the pool"
        made.capturing = one
        yield
        made.capturing = None

    fakes = {
        "graph_pool_handle": lambda: "the pool", "Stream": Stream, "current_stream": Stream,
        "stream": lambda _: contextlib.nullcontext(), "CUDAGraph": Graph, "graph": graph,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return made


def pictures(count: int, value: int) -> Tensor:
    return torch.full((count, 3, 4, 4), value, dtype=torch.uint8)


def test_each_size_is_captured_once_and_replayed(encoder: Encoder) -> None:
    run = captured(encoder, 4)
    first = run(pictures(8, 3))
    assert encoder.calls == [8] * (WARM_UPS + 1)
    second = run(pictures(8, 5))
    assert encoder.calls == [8] * (WARM_UPS + 1)
    assert (first.tolist(), second.tolist()) == ([6.0] * 8, [10.0] * 8)  # the first is not written over
    assert run(pictures(2, 7)).tolist() == [14.0] * 2
    assert run(pictures(8, 1)).tolist() == [2.0] * 8
    assert encoder.calls == [*[8] * (WARM_UPS + 1), *[2] * (WARM_UPS + 1)]


def test_odd_batches_are_padded_to_a_captured_size(encoder: Encoder) -> None:
    run = Padded(captured(encoder, 4))
    run(pictures(8, 1))
    for count in (7, 5, 6):
        assert run(pictures(count, count)).tolist() == [2.0 * count] * count
    assert encoder.calls == [8] * (WARM_UPS + 1)


def test_it_is_for_gpus_alone(encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="engine 'cuda-graph' runs on a cuda, and the model is to run on cpu"):
        run_encoder("cuda-graph", encoder, 4, {})
