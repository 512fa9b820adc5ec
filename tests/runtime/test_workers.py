"""How a cluster is shared out, by what its nodes have."""

import os

import pytest
import ray

from atlas_ray.errors import ConfigError
from atlas_ray.runtime.session import MALLOC_ENV
from atlas_ray.runtime.workers import WorkerPlan, plan_workers


def plan(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], *, address: bool = True, **asked: object
) -> WorkerPlan:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    return plan_workers(**({"device": "auto", "workers": 0, "threads": 0} | asked))  # type: ignore[arg-type]


HEAD, CPUS, GPU = {"CPU": 0.0}, {"CPU": 16.0}, {"CPU": 8.0, "GPU": 1.0}


def test_a_worker_a_core_or_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = plan(monkeypatch, [{"CPU": 4.0}], address=False)
    assert (alone.workers, alone.threads, alone.cpus) == (2, 1, 0)
    many = plan(monkeypatch, [HEAD, CPUS, CPUS])
    assert (many.workers, many.threads, many.gpus, many.cpus) == (24, 1, 0, 1)  # a quarter is left to reading
    both = plan(monkeypatch, [HEAD, CPUS, GPU, GPU])
    assert (both.workers, both.threads, both.gpus, both.decodes_apart) == (2, 0, 2, True)
    assert both.actor_options["num_gpus"] == 1


def test_a_process_with_a_gpu_keeps_a_cpu_where_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(monkeypatch, [HEAD, GPU, GPU]).cpus == 1
    assert plan(monkeypatch, [HEAD], device="cuda", workers=3).cpus == 1  # the nodes are yet to come
    assert plan(monkeypatch, [{"CPU": 4.0, "GPU": 1.0}]).cpus == 0
    assert plan(monkeypatch, [{"CPU": 8.0, "GPU": 8.0}]).cpus == 0  # they would leave no CPU to a task
    assert plan(monkeypatch, [GPU], per_gpu=4).cpus == 1
    assert plan(monkeypatch, [GPU], per_gpu=5).cpus == 0
    names = [
        set(made.actor_options["runtime_env"]["env_vars"])
        for made in (plan(monkeypatch, [GPU]), plan(monkeypatch, [CPUS]))
    ]
    assert names == [set(), set(MALLOC_ENV)]


def test_processes_share_a_gpu_where_they_are_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = plan(monkeypatch, [HEAD, GPU, GPU], per_gpu=3)
    assert (shared.workers, shared.gpus, shared.actor_options["num_gpus"]) == (6, 2, pytest.approx(1 / 3))
    assert plan(monkeypatch, [HEAD, GPU, GPU], per_gpu=3, workers=5).workers == 5
    coming = plan(monkeypatch, [HEAD], per_gpu=2, workers=5, device="cuda")
    assert (coming.workers, coming.gpus) == (5, 3)
    with pytest.raises(ConfigError, match="7 workers of 0 threads do not fit"):
        plan(monkeypatch, [HEAD, GPU, GPU], per_gpu=3, workers=7)
    alone = plan(monkeypatch, [HEAD, CPUS], per_gpu=3)  # without a GPU it says nothing
    assert (alone.workers, alone.actor_options["num_gpus"]) == (12, 0)


def test_pictures_are_decoded_by_tasks_where_there_are_cores_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"CPU": 7.0, "GPU": 1.0}
    assert plan(monkeypatch, [HEAD, GPU]).decodes_apart
    assert plan(monkeypatch, [HEAD, few, CPUS]).decodes_apart
    assert not plan(monkeypatch, [HEAD, few]).decodes_apart  # a head that takes no work decodes nothing
    assert not plan(monkeypatch, [HEAD, CPUS]).decodes_apart
    assert not plan(monkeypatch, [HEAD, GPU, CPUS], device="cpu", workers=2).decodes_apart


def test_a_block_for_a_gpu_is_whole_batches_as_many_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = plan(monkeypatch, [HEAD, CPUS]), plan(monkeypatch, [HEAD, GPU])
    assert [gpu.block_rows(size, 10**8) for size in (None, 8, 100, 1000, 8192)] == [1024, 1024, 1000, 1000, 8192]
    assert [gpu.block_rows(None, rows) for rows in (0, 5_000, 10_000)] == [256, 256, 512]
    assert (cpu.block_rows(None, 0), cpu.feeding.batch_size, gpu.feeding.batch_size) == (64, 32, 256)


def test_reading_grows_with_the_cores_and_not_with_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = plan(monkeypatch, [{"CPU": 4.0}], address=False)
    assert (alone.fetchers, alone.fetcher_cpus) == (2, 0)
    many = plan(monkeypatch, [HEAD, CPUS, CPUS])
    assert (many.fetchers, many.fetcher_cpus) == (24, 1)
    one_gpu = plan(monkeypatch, [HEAD, CPUS, {"CPU": 16.0, "GPU": 1.0}])
    assert (one_gpu.workers, one_gpu.fetchers, one_gpu.fetcher_cpus) == (1, 8, 1)


def test_blocks_of_large_streams_are_large_and_of_small_ones_enough_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    two = plan(monkeypatch, [{"CPU": 4.0}], address=False)
    assert [two.block_rows(32, rows) for rows in (0, 112, 2_048, 4_000, 8_192, 10**8)] == [64, 64, 64, 125, 128, 128]
    assert two.block_rows(200, 10**8) == 400


def test_a_process_without_a_gpu_of_its_own_uses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(monkeypatch, [HEAD, CPUS, GPU]).device == "cuda"
    assert plan(monkeypatch, [HEAD, CPUS]).device == "cpu"
    assert plan(monkeypatch, [HEAD, GPU], device="cpu").device == "cpu"
    with pytest.raises(ConfigError, match=r"--device is 'cuda:1', but Ray chooses"):
        plan(monkeypatch, [HEAD, GPU], device="cuda:1")


def test_what_a_cluster_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="40 workers of 1 threads do not fit the cluster's 16 CPUs and 0 GPUs"):
        plan(monkeypatch, [HEAD, CPUS], workers=40)
    with pytest.raises(ConfigError, match="do not fit"):
        plan(monkeypatch, [HEAD, GPU], workers=4)
    with pytest.raises(ConfigError, match="no GPU; if its nodes start on demand, give their number with --workers"):
        plan(monkeypatch, [HEAD, CPUS], device="cuda")
    with pytest.raises(ConfigError, match="no GPU"):
        plan(monkeypatch, [CPUS], device="cuda", workers=4, address=False)  # this machine gets no more


def test_each_process_finds_room_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    uneven = plan(monkeypatch, [{"CPU": 4.0}, {"CPU": 2.0}, {"CPU": 2.0}], workers=2)
    assert (uneven.workers, uneven.threads, uneven.cpus) == (2, 2, 2)  # of 3 only one would fit
    assert plan(monkeypatch, [CPUS, CPUS], workers=2).threads == 12
    with pytest.raises(ConfigError, match="2 workers of 3 threads do not fit the cluster's 8 CPUs"):
        plan(monkeypatch, [{"CPU": 4.0}, {"CPU": 2.0}, {"CPU": 2.0}], workers=2, threads=3)


def test_nodes_that_come_on_demand_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = plan(monkeypatch, [HEAD], device="cuda", workers=4)
    assert (gpus.workers, gpus.gpus) == (4, 4)
    assert gpus.actor_options["num_gpus"] == 1
    cpus = plan(monkeypatch, [HEAD], device="cpu", workers=40)
    assert (cpus.workers, cpus.threads) == (40, 1)
    assert cpus.actor_options["num_cpus"] == 1
    first = plan(monkeypatch, [HEAD])
    assert (first.workers, first.actor_options["num_cpus"]) == (1, 1)
