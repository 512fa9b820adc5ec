"""A Ray that does not start at once, or not at all."""

import os
import subprocess
import sys
from typing import Any

import pytest
import ray

from atlas_ray.errors import ClusterError
from atlas_ray.runtime import session

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """What each further try to start a Ray raises."""
    outcomes: list[Exception | None] = []

    def init(**_: Any) -> None:
        if outcome := outcomes.pop(0):
            raise outcome

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr("atexit.register", lambda _: None)
    return outcomes


def test_a_slow_start_is_tried_again(tries: list[Exception | None]) -> None:
    tries += [Exception(SLOW), None]
    session.connect()
    assert not tries


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        ([Exception(SLOW), Exception(SLOW)], "timed out"),
        ([RuntimeError("no room")], "no room"),
        ([ValueError()], "Val"),
    ],
)
def test_who_cannot_start_one_is_told_why(
    tries: list[Exception | None], outcomes: list[Exception], reason: str
) -> None:
    tries += outcomes
    with pytest.raises(ClusterError, match=f"no Ray could be started on this machine, with its files in .*{reason}"):
        session.connect()
    assert not tries


def test_a_local_path_on_several_machines_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [{"Alive": alive, "NodeManagerHostname": name} for alive, name in ((1, "a"), (1, "a"), (0, "c"))]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    session.warn_of_local_paths("/shop/run", "s3://shop/catalog")  # two nodes of one machine
    nodes.append({"Alive": True, "NodeManagerHostname": "b"})
    session.warn_of_local_paths("s3://shop/run", "az://shop/catalog", "")
    assert capsys.readouterr().err == ""
    session.warn_of_local_paths("s3://shop/run", "/shop/catalog")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "/shop/catalog is a local path, and the cluster has 2 machines" in told


STREAM = """
import ray.data
from atlas_ray.runtime.session import connect

class Stage:
    def __call__(self, rows):
        return rows

connect()
print("before")
print(ray.data.range(10).map_batches(Stage, compute=ray.data.ActorPoolStrategy(min_size=1, max_size=1)).count())
"""


@pytest.mark.long
def test_nothing_of_rays_own_is_printed() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", STREAM], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert (done.stdout, done.stderr, done.returncode) == ("before\n10\n", "", 0)
