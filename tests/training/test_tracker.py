"""TensorBoard event files and MLflow, read back."""

import os
import struct
from pathlib import Path

import pytest

from atlas_ray.errors import ConfigError
from atlas_ray.training.settings import ClassifierTraining
from atlas_ray.training.tracker import Tracker, mlflow_environment

METRICS = {"step": 7, "epoch": 1, "train_loss": 1.25, "val_accuracy": 0.5}


def scalars(folder: Path) -> dict[str, float]:
    """Read the scalars of the event files: records of length, checksum, protocol buffer, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, float] = {}
    for file in folder.glob("events.out.*"):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            found |= {value.tag: value.simple_value for value in event.summary.value}
    return found


def test_event_files_hold_steps_and_epochs(tmp_path: Path) -> None:
    tracker = Tracker(ClassifierTraining(catalog="c", output=str(tmp_path)), {})
    tracker.step(3, {"loss": 2.5})
    tracker.epoch(METRICS)
    tracker.close()
    found = scalars(tmp_path / "tensorboard")
    assert found["train/loss"] == 2.5
    assert found["epoch/train_loss"] == 1.25
    assert found["epoch/val_accuracy"] == 0.5


@pytest.mark.long
def test_mlflow_gets_parameters_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    environment = mlflow_environment()
    assert environment["MLFLOW_TRACKING_URI"] == os.environ["MLFLOW_TRACKING_URI"]
    tracker = Tracker(ClassifierTraining(catalog="c", output=str(tmp_path / "model"), epochs=5), environment)
    tracker.epoch(METRICS)
    tracker.close()
    (run,) = mlflow.tracking.MlflowClient().search_runs(["0"])
    assert run.info.run_name == "model"
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "5"
    assert run.data.metrics["epoch_val_accuracy"] == 0.5


def test_without_the_variable_nothing_is_asked_of_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mlflow_environment() == {}


def test_a_missing_mlflow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(ConfigError, match="MLflow is not installed"):
        mlflow_environment()
