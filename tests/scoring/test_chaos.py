"""A scoring run that random events disturb, on a cluster of two nodes."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_random_events_cost_no_picture() -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--events", "5", "--pictures", "1000", "--down-s", "5"]
    done = subprocess.run([*command, "--limit-s", "500"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "passed"
