"""Training that is shared, cut and killed gives the curve of one that was left alone.

The runs here see the whole training split in every step, with a still encoder and no chance in them,
so their curves may be compared number by number.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.evaluation.paths import evaluate
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.training.run import TrainReport, train
from atlas_ray.training.settings import EncoderDecoderTraining
from tests.support.kills import CLUSTER, descendants
from tests.support.parts import rows

pytestmark = pytest.mark.ray

LEAVING = """
import sys
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
import time
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
node = cluster.add_node(num_cpus=4)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
if sys.stdin.readline():
    cluster.add_node(num_cpus=4)
    deadline = int(1000 * (time.time() + 10))
    GcsClient(cluster.address).drain_node(node.node_id, DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "", deadline)
    sys.stdin.read()
cluster.shutdown()
"""
"""A cluster whose only node with CPUs gives 10 s of notice when it is told to, and is replaced."""
EPOCHS = 6
WHOLE: dict[str, Any] = {
    "backbone": "resnet18", "image_size_px": 32, "hidden_dim": 16, "batch_size": 48, "epochs": EPOCHS,
    "train_from_block": 5, "dropout": 0.0, "decoder_lr": 1e-2, "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def curve(catalog: str, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    output = str(tmp_path_factory.mktemp("alone") / "model")
    history: list[dict[str, Any]] = train(EncoderDecoderTraining(catalog=catalog, output=output, **WHOLE)).metrics[
        "history"
    ]
    assert [epoch["step"] for epoch in history] == list(range(1, EPOCHS + 1))  # one step holds the whole split
    assert history[-1]["val_loss"] < 0.9 * history[0]["val_loss"]
    return history


def same_curve(history: list[dict[str, Any]], curve: list[dict[str, Any]]) -> None:
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))
    for name in ("train_loss", "val_loss"):
        # Adam's first steps go by the signs of gradients, and rounding turns those of some that are next to nothing.
        assert [epoch[name] for epoch in history] == pytest.approx([epoch[name] for epoch in curve], rel=5e-3)


def command(catalog: str, output: str, settings: dict[str, Any] = WHOLE) -> list[str]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    start = [sys.executable, "-m", "atlas_ray", "train", "encoder-decoder", "--catalog", catalog]
    return [*start, "--output", output, *flags]


@contextmanager
def running_on(
    script: str, what: list[str], log: Path, **environment: str
) -> "Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]":
    """Run a command on the cluster of a script, and see it end well; yield both while it runs."""
    python = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(python, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as cluster,
        log.open("wb") as said,
    ):
        assert cluster.stdout is not None
        address = {"RAY_ADDRESS": cluster.stdout.readline().decode().strip()}
        run = subprocess.Popen(what, stdout=said, stderr=said, env=os.environ | address | environment)
        yield cluster, run
        assert run.wait(300) == 0, log.read_text()


def tell(cluster: "subprocess.Popen[bytes]", word: bytes) -> None:
    """Give the script of a cluster a word."""
    assert cluster.stdin is not None
    cluster.stdin.write(word + b"\n")
    cluster.stdin.flush()


def wait_for(what: Callable[[], object], run: "subprocess.Popen[bytes] | threading.Thread", timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        alive = run.is_alive() if isinstance(run, threading.Thread) else run.poll() is None
        assert alive, "the run ended too early"
        assert time.monotonic() < end, "nothing to kill yet"
        time.sleep(0.05)


def checkpoints(output: Path) -> list[Path]:
    return sorted((output / "checkpoints").glob("checkpoint_*/state.pt"))


@pytest.mark.slow  # two workers train in every run, into S3
def test_two_workers_in_parts_learn_as_one(catalog: str, curve: list[dict[str, Any]], tmp_path: Path) -> None:
    settings = WHOLE | {"workers": "2", "accumulate": 2}
    done = train(EncoderDecoderTraining(catalog=catalog, output=str(tmp_path / "model"), **settings))
    same_curve(done.metrics["history"], curve)


@pytest.mark.slow  # likewise
def test_two_workers_in_bfloat16_learn_as_one_and_measure_the_model_that_they_save(
    catalog: str, local_ray: None, tmp_path: Path
) -> None:
    settings = WHOLE | {"precision": "bfloat16", "train_from_block": 1, "decoder_lr": 1e-3, "encoder_lr": 1e-4}
    alone, shared = (
        train(EncoderDecoderTraining(catalog=catalog, output=f"{tmp_path}/{count}", workers=count, **settings)).metrics
        for count in ("1", "2")
    )
    for name in ("train_loss", "val_loss"):
        curves = [[epoch[name] for epoch in metrics["history"]] for metrics in (alone, shared)]
        assert curves[1] == pytest.approx(curves[0], rel=0.01)
    run = str(tmp_path / "run")
    predictor = PredictorConfig(precision="bfloat16")
    score(ScoreConfig(catalog=catalog, model=f"{tmp_path}/2", output=run, predictor=predictor))
    assert evaluate(run)["val"].exact == pytest.approx(shared["val_accuracy"])


@pytest.mark.slow  # likewise
def test_a_node_that_gives_notice_is_saved_for(catalog: str, tmp_path: Path) -> None:
    output = tmp_path / "model"
    slow = command(catalog, str(output), WHOLE | {"batch_size": 2, "image_size_px": 224, "epochs": 12})
    with running_on(LEAVING, slow, tmp_path / "log", RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S="0.5") as (cluster, run):
        wait_for(lambda: len(checkpoints(output)) >= 1, run, 300)
        tell(cluster, b"leave")
    metrics = load_artifact(str(output)).metrics
    steps = metrics["history"][0]["step"]
    assert [epoch["step"] for epoch in metrics["history"]] == [steps * count for count in range(1, 13)]
    (resumed,) = metrics["resumed_at_steps"]
    assert resumed % steps  # in the middle of an epoch


@pytest.mark.slow  # a training's kill takes minutes
def test_a_killed_worker_repeats_no_more_than_since_its_last_checkpoint(
    catalog: str, local_ray: None, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    settings = WHOLE | {"batch_size": 7, "checkpoint_minutes": 1e-6, "workers": "1:2", "epochs": 3}
    found: list[TrainReport] = []
    config = EncoderDecoderTraining(catalog=catalog, output=str(output), **settings)
    run = threading.Thread(target=lambda: found.append(train(config)))
    run.start()
    # Ray Train's controller asks its workers now and then what they reported; what it does not
    # know of when a worker dies is not gone on from.
    known = output / "checkpoints" / "checkpoint_manager_snapshot.json"
    wait_for(lambda: known.exists() and "checkpoint_2" in known.read_text(), run, 300)
    workers = [pid for pid, title in descendants(os.getpid()) if "RayTrainWorker" in title]
    os.kill(max(workers), signal.SIGKILL)  # the newest: earlier runs may have left idle ones
    run.join(300)
    (done,) = found
    history = done.metrics["history"]
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    steps = sum(row["split"] == "train" for row in rows(catalog, "products")) // 7
    assert [epoch["step"] for epoch in history] == [steps * epoch["epoch"] for epoch in history]
    (resumed,) = done.metrics["resumed_at_steps"]
    assert resumed >= 2  # at one of the checkpoints, of which there is one a step


@pytest.mark.slow  # of the kills, every run has that of a scoring
def test_a_killed_driver_goes_on(catalog: str, curve: list[dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "model"
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(command(catalog, str(output)), stdout=log, stderr=log)
        wait_for(lambda: len(checkpoints(output)) >= 2, run, 300)
        run.kill()
        run.wait()
    assert not (output / "model.json").exists()
    done = subprocess.run(command(catalog, str(output)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = load_artifact(str(output)).metrics
    same_curve(metrics["history"], curve)
    assert metrics["resumed_at_steps"]
    again = subprocess.run(command(catalog, str(output)), capture_output=True, text=True)
    assert "holds this run, finished; nothing to do" in again.stdout


@pytest.mark.slow  # likewise
def test_a_killed_node_goes_on(catalog: str, curve: list[dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "model"
    with running_on(CLUSTER, command(catalog, str(output)), tmp_path / "log") as (cluster, run):
        wait_for(lambda: len(checkpoints(output)) >= 2, run, 300)
        tell(cluster, b"kill")
        assert cluster.stdout is not None
        assert cluster.stdout.readline() == b"killed\n"
    same_curve(load_artifact(str(output)).metrics["history"], curve)
