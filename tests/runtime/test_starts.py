"""Processes of a stream that fail to start."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
import ray.data

from atlas_ray.errors import ArtifactError, reason_of
from atlas_ray.runtime.pictures import ask_model
from atlas_ray.runtime.session import STARTS
from atlas_ray.runtime.workers import WorkerPlan

pytestmark = pytest.mark.long
PLAN = WorkerPlan(workers=1, threads=1, fetchers=1, gpus=0, cpu_nodes=True, free=True)


class DiesAtFirst:
    """A model whose process is killed as it loads, as one is when memory is short."""

    def __init__(self, folder: str, times: int) -> None:
        started = len(os.listdir(folder))
        Path(folder, str(started)).touch()
        if started < times:
            os._exit(9)

    def __call__(self, table: pa.Table) -> pa.Table:
        return table


class Refuses:
    """A model that cannot be loaded."""

    def __init__(self, folder: str) -> None:
        Path(folder, str(len(os.listdir(folder)))).touch()
        raise ArtifactError(f"{folder}: damaged")

    def __call__(self, table: pa.Table) -> pa.Table:
        raise AssertionError


def test_a_process_that_dies_as_it_starts_is_started_again(local_ray: None, tmp_path: Path) -> None:
    stream = ask_model(ray.data.range(20, override_num_blocks=2), PLAN, DiesAtFirst, str(tmp_path), STARTS - 1)
    assert stream.materialize().count() == 20
    assert len(list(tmp_path.iterdir())) == STARTS


def test_a_model_that_never_starts_ends_the_run(local_ray: None, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="damaged") as told:
        ask_model(ray.data.range(20, override_num_blocks=2), PLAN, Refuses, str(tmp_path)).materialize()
    reason = reason_of(told.value)
    assert isinstance(reason, ArtifactError)
    assert str(reason) == f"{tmp_path}: damaged"
    assert len(list(tmp_path.iterdir())) == STARTS
