"""Plans of the four commands, on a catalogue that they then run over: nothing is written, and nothing is far off."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from atlas_ray.artifacts import save_zoom_artifact
from atlas_ray.cli.main import main
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.pipelines.plan import PLANS
from atlas_ray.reports.plan import duration, lines, size
from atlas_ray.runtime.plan import STAGES, Plan, Stage
from tests.support.inputs import write_catalog
from tests.support.parts import picture
from tests.support.picture_server import PictureServer

FLAGS = ["--plan", "--json", "--plan-pictures", "32", "--price-per-hour", "3.6"]


def planned(capsys: pytest.CaptureFixture[str], command: list[str], code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*command, *FLAGS]) == code
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    return plan


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of 60 pictures, every fourth of which is missing."""
    folder = tmp_path_factory.mktemp("planned")
    for number in range(60):
        if number % 4:
            (folder / f"{number}.jpg").write_bytes(picture(number, 40))
    write_catalog(str(folder / "catalog"), [str(folder / f"{number}.jpg") for number in range(60)])
    return folder


@pytest.mark.usefixtures("local_ray")
def test_streams_are_planned(
    pictures: Path, small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    save_zoom_artifact(str(tmp_path / "zoom"), ZoomNetwork(ZoomConfig(image_size_px=30)), metrics={})
    models = {"score": small_model, "embed": small_model, "filter": str(tmp_path / "zoom")}
    for command, model in models.items():
        output = tmp_path / command
        words = [command, "--catalog", str(pictures / "catalog"), "--model", model, "--output", str(output)]
        plan = planned(capsys, [*words, "--batch-size", "4"], code=3)
        assert (plan["command"], plan["pictures"], plan["tried"]) == (command, 60, 32)
        assert {stage["name"] for stage in plan["stages"]} == {*STAGES[command].values(), "write"}
        assert all(stage["pictures_per_s"] > 0 for stage in plan["stages"])
        assert plan["refused"] == {"not_found": pytest.approx(0.25, abs=0.1)}
        assert plan["seconds"]["total"] == pytest.approx(
            sum(plan["seconds"][part] for part in ("start", "stream", "tables"))
        )
        assert plan["cost"] == pytest.approx(3.6 * plan["machine_hours"])
        assert plan["million_cost"] == pytest.approx(1000 / plan["pictures_per_s"])
        assert plan["files"]["quarantine"] == 1
        assert not output.exists()


@pytest.mark.usefixtures("local_ray")
def test_a_fetch_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PictureServer() as server:
        uris = [f"{server.url}/{'ok' if number % 4 else 'gone'}/{number}.jpg" for number in range(60)]
        write_catalog(str(tmp_path / "catalog"), uris)
        words = ["fetch", "--catalog", str(tmp_path / "catalog"), "--output", str(tmp_path / "out")]
        words += ["--allow-private", server.place]
        plan = planned(capsys, [*words, "--per-host-rate", "20"], code=3)
        assert plan["tried"] == 32
        assert len(server.asked) == 32
    assert plan["pictures_per_s"] <= 20
    assert sum(plan["refused"].values()) == pytest.approx(0.25)
    assert plan["files"]["pictures"] == 45
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_what_the_run_would_refuse_the_plan_does(
    pictures: Path, small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.json").write_text("{}")
    words = ["score", "--catalog", str(pictures / "catalog"), "--model", small_model, "--output", str(tmp_path / "out")]
    assert main([*words, "--plan"]) == 2
    assert "holds a model or a catalogue (model.json)" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.json"]


def test_each_command_has_its_stages() -> None:
    assert PLANS.keys() == STAGES.keys()


def test_a_plan_is_told_in_sentences() -> None:
    plan = Plan(
        command="score", pictures=1_000_000, tried=512, bottleneck="decode and model", pictures_per_s=200, workers=2,
        threads=1, gpus=0, machines=2, machine_hours=1.4, cost=4.2, million_cost=8.333,
        files={"predictions": 489},
        bytes={"predictions": 250_000_000}, refused={"not_found": 0.012}, notes=["a note"],
        seconds={"start": 12.0, "stream": 5000.0, "tables": 40.0, "total": 5052.0},
        stages=[Stage("read", 900, 2, 512.0), Stage("decode and model", 110, 2, 1536.0)],
    )  # fmt: skip
    assert lines(plan) == [
        "together 200 pictures/s, 100 a machine; the slowest stage: decode and model",
        "workers: 2 (1 threads each) on 2 machines",
        "time: 84 min 12 s for 1000000 pictures: start 12 s, stream 83 min 20 s, tables 40 s",
        "machine hours: 1.40, cost: 4.20; a million pictures more: 8.33",
        "memory: 4.0 GiB of all these processes",
        "files: 489 in predictions, about 250.0 MB",
        "refused: 1.2% not_found",
        "a note",
    ]
    assert (duration(7.4), duration(20_000), size(12)) == ("7 s", "5 h 33 min", "12 bytes")
