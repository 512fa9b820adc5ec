"""The check of a GPU, run on a CPU: every part comes to its end, with a prediction beside every figure."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_parts import Figure, Machine

ROOT = Path(__file__).resolve().parents[2]


def lines(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()]


@pytest.mark.long
def test_every_part_comes_to_its_end_where_there_is_no_ray(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('ray')")
    results = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device=cpu", "--small", f"--results={results}"]
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    about, *found = lines(results)
    assert about["device"] == "cpu"
    assert {line["part"] for line in found} == set(gpu_check.PARTS)
    skipped = [line for line in found if "skipped" in line]
    assert [(line["part"], line["skipped"]) for line in skipped] == [("score", "Ray is not installed")]
    found = [line for line in found if line not in skipped]
    assert all(line["value"] >= 0 and line["unit"] and line["predicted"] for line in found)
    same = [line["value"] for line in found if line["unit"] == "% the same"]
    assert same[:2] == [100.0, 100.0]  # float32, in batches of two sizes


def test_the_whole_check_fits_into_eight_minutes() -> None:
    assert sum(part.limit_s for part in gpu_check.PARTS.values()) <= 480


@pytest.mark.long
def test_a_part_that_fails_or_hangs_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(_: Machine) -> Iterator[Figure]:
        yield Figure("so far", 1.0, "s", "1")
        raise RuntimeError("an illegal access\nand its stack")

    def never(_: Machine) -> Iterator[Figure]:
        yield Figure("so far", 2.0, "s", "2")
        time.sleep(60)

    parts = {"half": gpu_check.Part(half, 30), "never": gpu_check.Part(never, 1)}
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    results = tmp_path / "results.jsonl"
    machine = Machine("cpu", True, str(tmp_path))
    began = time.monotonic()
    assert [gpu_check.run(name, machine, results) for name in parts] == [False, False]
    assert time.monotonic() - began < 30
    assert [line.get("value", line.get("failed")) for line in lines(results)] == [
        1.0, "RuntimeError: an illegal access", 2.0, "stopped after 1 s"
    ]  # fmt: skip
