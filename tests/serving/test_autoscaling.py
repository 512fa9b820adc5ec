"""How many replicas the load asks for."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from atlas_ray.serving.autoscaling import BusyTime, ScaleByProducts


@pytest.mark.parametrize(
    ("held", "busy", "wanted"),
    [
        ([32], None, 1.0),  # a gateway, or a replica of an older version
        ([64, 128], None, 6.0),
        ([256], [0.4], 0.5),  # well fed, and half idle: one is enough
        ([256], [0.9], 1.125),
        ([256], [1.0], 8.0),  # it cannot do more, so that what waits counts
        ([256, 0], [1.0, 0.2], 1.5),  # the other one is there to take it
        ([96, 96], [0.97, 0.97], 6.0),
        ([0, 0], [0.0, 0.0], 0.0),
        ([8], [0.5], 0.25),
    ],
)
def test_replicas_are_added_where_those_there_are_busy(
    held: list[float], busy: list[float] | None, wanted: float
) -> None:
    metrics = {"products": dict(enumerate(held))} | ({"busy": dict(enumerate(busy))} if busy else {})
    context: Any = SimpleNamespace(aggregated_metrics=metrics)
    replicas, _ = ScaleByProducts(32)(context)
    assert replicas == pytest.approx(wanted)
    nothing: Any = SimpleNamespace(aggregated_metrics=None)
    assert ScaleByProducts(32)(nothing) == (0.0, {})


def test_busy_time_counts_what_runs_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    busy = BusyTime()
    now[0] = 2
    with busy:
        now[0] = 5
    now[0] = 10
    assert busy.share() == pytest.approx(0.3)
    with busy:
        now[0] = 14
        assert busy.share() == 1.0
        now[0] = 15
    now[0] = 18
    assert busy.share() == pytest.approx(0.25)
    now[0] = 20
    assert busy.share() == 0.0
