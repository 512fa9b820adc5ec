"""Replicas that come with the load, and requests that share calls and go away."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from atlas_ray.taxonomy import Taxonomy
from tests.support.cluster import replica_pids, wait_until
from tests.support.endpoint import endpoint
from tests.support.parts import make_artifact, picture

pytestmark = pytest.mark.ray

CLIENTS = 8


@pytest.mark.slow
def test_replicas_come_where_batches_wait(tmp_path: Path, garments: Taxonomy) -> None:
    make_artifact(str(tmp_path / "slow"), garments, image_size_px=384)
    with endpoint(
        f"--model={tmp_path}/slow", "--allow-anonymous", "--batch-size=3", "--min-replicas=0", "--max-replicas=2",
        "--model-cpus=0.25", "--max-pictures=1", "--batch-wait-ms=500",
    ) as running, ThreadPoolExecutor(CLIENTS) as pool:  # fmt: skip
        end = time.monotonic() + 180

        def replicas() -> int:
            return len(replica_pids("model-default", running.process.pid))

        def client(number: int) -> set[int]:
            """Ask until there are two replicas, and a little longer."""
            statuses = set()
            until = end
            while time.monotonic() < until:
                files = {"file": ("a.jpg", picture(number))}
                statuses.add(requests.post(f"{running.url}/v1/categorize", files=files, timeout=60).status_code)
                if until == end and replicas() == 2:
                    until = time.monotonic() + 5
            return statuses

        def gone() -> None:
            """Ask, and do not wait for the answer."""
            with contextlib.suppress(requests.Timeout):
                requests.post(f"{running.url}/v1/categorize", files={"file": ("a.jpg", picture(0))}, timeout=0.7)

        # The first one's arrival makes the call that both share; the second one's answer comes all the same.
        for _ in range(3):
            left = pool.submit(gone)
            time.sleep(0.1)
            stayed = requests.post(f"{running.url}/v1/categorize", files={"file": ("a.jpg", picture(1))}, timeout=60)
            assert stayed.status_code == 200, stayed.text
            left.result()
        assert replicas() == 1
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        wait_until(lambda: replicas() == 2, 180)
        assert set[int]().union(*(one.result() for one in clients)) == {200}


@pytest.mark.slow
def test_gateways_come_where_pictures_wait_to_be_decoded(tmp_path: Path, garments: Taxonomy) -> None:
    make_artifact(str(tmp_path / "quick"), garments)
    large = picture(0, 3000)
    with endpoint(
        f"--model={tmp_path}/quick", "--allow-anonymous", "--model-cpus=0", "--gateways=2", "--decode-threads=1"
    ) as running, ThreadPoolExecutor(CLIENTS) as pool:  # fmt: skip

        def gateways() -> int:
            return len(replica_pids("gateway", running.process.pid))

        def client(_: int) -> set[int]:
            statuses = set()
            end = time.monotonic() + 180
            while time.monotonic() < end and gateways() < 2:
                files = [("file", ("a.jpg", large))] * 8
                statuses.add(requests.post(f"{running.url}/v1/categorize", files=files, timeout=60).status_code)
            return statuses

        assert gateways() == 1
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        wait_until(lambda: gateways() == 2, 180)
        assert set[int]().union(*(one.result() for one in clients)) <= {200, 429}
