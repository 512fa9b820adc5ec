"""Processes of a stream that fail to start, or lose their GPU."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray.data
import torch

from atlas_ray.errors import ArtifactError, DeviceError, reason_of
from atlas_ray.runtime.labelled import Ask
from atlas_ray.runtime.lost_devices import LOST_IN_A_ROW, given_up_when_lost
from atlas_ray.runtime.pictures import ask_model
from atlas_ray.runtime.progress import ProgressDisplay, tell_block
from atlas_ray.runtime.session import STARTS
from atlas_ray.runtime.workers import WorkerPlan

pytestmark = pytest.mark.long
PLAN = WorkerPlan(workers=1, threads=1, fetchers=1, gpus=0, decodes_apart=False, cpus=0)


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


class NamesItsDevices:
    """Tells which GPUs it may see."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, table: pa.Table) -> pa.Table:
        return table.append_column("seen", pa.array([f"{self._name} {os.environ.get('CUDA_VISIBLE_DEVICES')}"]))


def test_a_process_without_a_gpu_sees_none() -> None:
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = "3"
        found = [
            Ask(None, device, NamesItsDevices, device)(pa.table({"id": [1]}))["seen"].to_pylist()
            for device in ("cuda", "cpu")
        ]
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
    assert found == [["cuda 3"], ["cpu "]]


class LosesItsDevice:
    """A model on a GPU that some blocks make unusable."""

    def __init__(self, progress: Any, folder: str, times: int) -> None:
        self._progress, self._folder, self._times = progress, folder, times

    @given_up_when_lost
    def __call__(self, table: pa.Table) -> pa.Table:
        if 0 in table["id"].to_pylist() and (lost := len(os.listdir(self._folder))) < self._times:
            Path(self._folder, str(lost)).touch()
            raise torch.AcceleratorError("CUDA error: device-side assert triggered\nSearch for it.")
        tell_block(self._progress, {"done": len(table)})
        return table


@pytest.mark.parametrize("times", [LOST_IN_A_ROW, 100])
def test_a_process_that_loses_its_gpu_is_replaced(
    local_ray: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], times: int
) -> None:
    with ProgressDisplay("asking", "rows", total=20) as display:
        stream = ask_model(
            ray.data.range(20, override_num_blocks=1), PLAN, LosesItsDevice, display.actor, str(tmp_path), times
        )
        if times <= LOST_IN_A_ROW:
            assert stream.materialize().count() == 20
        else:
            with pytest.raises(Exception, match="4 times in a row") as told:
                stream.materialize()
            assert isinstance(reason_of(told.value), DeviceError)
    assert len(list(tmp_path.iterdir())) == min(times, LOST_IN_A_ROW + 1)
    assert "is lost: CUDA error: device-side assert triggered\n" in capfd.readouterr().err
