"""Processes that leave no CPU to tasks."""

import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest

CODE = """
import sys, ray
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
from atlas_ray.runtime import pictures, room, session
from atlas_ray.runtime.workers import WorkerPlan
room.EVERY_S = room.PATIENCE_S = 1
session.connect()
class Model:
    def __call__(self, block):
        return block
plan = WorkerPlan(workers=3, threads=1, fetchers=1, gpus=0, decodes_apart=False, cpus=1)
pictures.ask_model(ray.data.range(3000, override_num_blocks=30), plan, Model).write_parquet(sys.argv[1])
"""


@pytest.mark.ray
def test_a_stream_whose_processes_reserve_the_whole_cluster_goes_on_with_fewer(tmp_path: Path) -> None:
    output = tmp_path / "rows"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(output)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ds.dataset(output).count_rows() == 3000
