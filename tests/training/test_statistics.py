"""The running statistics of normalizations over several workers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from atlas_ray.training.loop import average_statistics


def test_workers_measure_with_the_mean_of_their_statistics() -> None:
    networks = [nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)) for _ in range(2)]
    for network in networks:
        network(torch.randn(8, 3, 5, 5))
    own = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]
    met, sent = threading.Barrier(2), dict[int, Tensor]()

    def worker(rank: int) -> None:
        def add_up(values: Tensor) -> Tensor:
            sent[rank] = values
            met.wait(10)
            return sent[0] + sent[1]

        average_statistics(networks[rank], add_up, 2)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(worker, range(2)))
    for network, before in zip(networks, own, strict=True):
        for name, tensor in network.state_dict().items():
            wanted = (own[0][name] + own[1][name]) / 2 if "running" in name else before[name]
            torch.testing.assert_close(tensor, wanted)


def test_what_has_no_statistics_or_no_company_asks_nobody() -> None:
    for network, workers in ((nn.BatchNorm2d(4), 1), (nn.Linear(2, 2), 2)):
        average_statistics(network, lambda _: pytest.fail("asked"), workers)
