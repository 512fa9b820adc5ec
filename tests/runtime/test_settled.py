"""What `auto` comes to in a run, and that a run keeps it."""

import functools

import pytest
import ray
import torch

from atlas_ray.prediction.device import choose_dtype, name_of_dtype
from atlas_ray.prediction.engines import PLAIN
from atlas_ray.runtime import settled
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settled import settle
from atlas_ray.runtime.workers import plan_workers

AUTO = {"model_id": "m", "zoom_model_id": None, "precision": "auto", "engine": "auto"}
BEST = name_of_dtype(choose_dtype("auto", torch.device("cpu")))
PLAN = functools.partial(plan_workers, device="cpu", workers=1, threads=1)


def no_plan() -> None:
    raise AssertionError("no process is needed to find it out")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_auto_is_what_suits_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settle(AUTO, no_plan, "cpu", {"engine": ()}, {}, None)  # type: ignore[arg-type]
    assert found == AUTO | {"precision": BEST, "engine": PLAIN}
    pytest.importorskip("openvino")
    found = settle(AUTO, no_plan, "cpu", {"engine": ("openvino-int8", "openvino")}, {})  # type: ignore[arg-type]
    assert found["engine"] == "openvino-int8"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    found = settle(AUTO, no_plan, "cpu", {"engine": ("openvino-int8",)})  # type: ignore[arg-type]
    assert found["engine"] == PLAIN


@pytest.mark.parametrize("known", [("begun",), (None, "begun"), ("begun", "earlier")])
def test_a_run_keeps_what_it_began_with(monkeypatch: pytest.MonkeyPatch, known: tuple[str | None, ...]) -> None:
    monkeypatch.setattr(settled, "of_this_machine", no_plan)
    runs = {
        "begun": AUTO | {"precision": "float32", "engine": "openvino-int8"},
        "earlier": AUTO | {"precision": "bfloat16", "engine": "torch"},
    }
    found = settle(AUTO, no_plan, "auto", {"engine": ()}, *(runs[one] if one else None for one in known))  # type: ignore[arg-type]
    assert found == runs["begun"]
    asked = settle(AUTO | {"precision": "bfloat16"}, no_plan, "cpu", {"engine": ()}, runs["begun"])  # type: ignore[arg-type]
    assert (asked["precision"], asked["engine"]) == ("bfloat16", "openvino-int8")


def test_another_model_keeps_nothing() -> None:
    other = AUTO | {"model_id": "other", "precision": "float16", "engine": "openvino-int8"}
    zoomed = other | {"model_id": "m", "zoom_model_id": "z"}
    found = settle(AUTO, no_plan, "cpu", {"engine": ()}, other, zoomed)  # type: ignore[arg-type]
    assert (found["precision"], found["engine"]) == (BEST, PLAIN)
    # A run of an older version says `auto`.
    assert settle(AUTO, no_plan, "cpu", {"engine": ()}, AUTO)["precision"] == BEST  # type: ignore[arg-type]


@pytest.mark.long
def test_on_a_cluster_a_machine_with_models_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    connect()
    nodes = ray.nodes()
    elsewhere = {**nodes[0], "NodeManagerAddress": "192.0.2.1", "Resources": {"CPU": 0.0}}
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    here: list[str] = []

    def of_this_machine(device: str, wanted: dict[str, str], _: object) -> dict[str, str]:
        here.append(device)
        return wanted | {"precision": "here" if ray.get_runtime_context().worker.mode == 0 else "there"}

    monkeypatch.setattr(settled, "of_this_machine", of_this_machine)
    assert settle(AUTO, PLAN, "cpu", {"engine": ()})["precision"] == "here"  # one machine, and this is it
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, elsewhere])
    assert settle(AUTO, PLAN, "cpu", {"engine": ()})["precision"] == "there"
    assert here == ["cpu"]
