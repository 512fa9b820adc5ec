"""The endpoint on a cluster of two nodes, under load, while parts of it die and are replaced."""

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from atlas_ray.serving.access import new_token
from atlas_ray.taxonomy import Taxonomy
from tests.support.cluster import Cluster, head, replica_pids, wait_until
from tests.support.inputs import free_port
from tests.support.parts import make_artifact, picture

pytestmark = pytest.mark.cluster

TOKEN, LINE = new_token("load")
CLIENTS = 4
PICTURES = 6


class Load:
    """Clients that ask one after the other, and what they were told."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {TOKEN}"}
        self.answers: Counter[str] = Counter()
        self.done_at: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, number: int) -> None:
        count = PICTURES if number % 2 else 1  # those of one picture share calls
        files = [("file", ("a", picture(number)))] * count
        with requests.Session() as session:
            session.headers.update(self.headers)
            while not self._stop.is_set():
                try:
                    answer = session.post(f"{self.url}/v1/categorize", files=files, timeout=60)
                    found = answer.json()["results"] if answer.status_code == 200 else []
                    text = found[-1]["model_id"] if len(found) == count else answer.text
                except (requests.RequestException, KeyError, ValueError) as error:
                    text = f"{type(error).__name__}: {error}"
                self.answers[text] += 1
                self.done_at.append(time.monotonic())

    def go_on_for(self, seconds: float) -> None:
        """Wait until answers have come for so long."""
        time.sleep(seconds)
        assert time.monotonic() - self.done_at[-1] < seconds


def deploy(cluster: Cluster, model: str, port: int, batch_size: int) -> None:
    command = [sys.executable, "-m", "atlas_ray", "serve", "--detach", f"--model={model}", f"--port={port}"]
    command += [f"--tokens={LINE}", "--min-replicas=2", "--max-replicas=2", "--model-cpus=2"]
    command += ["--drain-s=10", f"--batch-size={batch_size}"]
    done = subprocess.run(command, env=cluster.driving, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"serving at http://127.0.0.1:{port}" in done.stdout


def missing_metrics(cluster: Cluster) -> set[str]:
    """Return the metrics of the dashboard that the head does not export."""
    dashboard = Path(__file__).resolve().parents[2] / "cluster" / "grafana.json"
    names = set(re.findall(r"ray_(?:atlas_ray|serve)_[a-z_]+", dashboard.read_text()))
    return names - set(re.findall(r"^(\w+)[{ ]", requests.get(cluster.metrics, timeout=30).text, re.MULTILINE))


@pytest.mark.slow
def test_requests_are_answered_while_replicas_models_and_nodes_go(tmp_path: Path, garments: Taxonomy) -> None:
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    models = [str(tmp_path / name) for name in ("one", "two")]
    # The second takes pictures of another size, and other batches.
    ids = [make_artifact(model, garments, seed, 32 + 16 * seed) for seed, model in enumerate(models)]
    port = free_port()
    with head(token, cpus=6) as cluster, cluster.node(2) as node:
        deploy(cluster, models[0], port, 8)
        with Load(f"http://127.0.0.1:{port}") as load:
            load.go_on_for(3)
            assert load.answers.keys() == {ids[0]}

            bad = requests.post(load.url + "/v1/categorize", files={"file": b""}, headers=load.headers, timeout=60)
            assert bad.json()["results"][0]["error"]["code"] == "empty"
            wait_until(lambda: not missing_metrics(cluster), 60, 2)

            own, there = replica_pids("model-default", os.getpid()), replica_pids("model-default", node.process.pid)
            assert len(own) == 2, own
            assert len(there) == 1, there  # one on each node
            os.kill(next(pid for pid in own if pid not in there), signal.SIGKILL)
            wait_until(lambda: len(set(replica_pids("model-default", os.getpid())) - set(own)) == 1, 120)
            load.go_on_for(3)
            assert load.answers.keys() == {ids[0]}, load.answers

            deploy(cluster, models[1], port, 4)
            load.go_on_for(3)
            assert load.answers.keys() == set(ids), load.answers
            before = load.answers[ids[0]]

            node.kill()
            load.go_on_for(15)
            # A gateway may have been there; what it was answering is lost with it, and nothing else.
            lost = sum(count for text, count in load.answers.items() if text not in ids)
            assert lost <= CLIENTS, load.answers
            load.go_on_for(5)
            assert sum(count for text, count in load.answers.items() if text not in ids) == lost
            assert load.answers[ids[0]] == before
            assert load.answers[ids[1]] > 20
