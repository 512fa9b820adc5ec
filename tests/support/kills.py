"""Scoring runs killed at random moments, run again, and compared with an uninterrupted one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atlas_ray.runtime.checkpoint import rows_done
from tests.support.inputs import pictures, random_model, write_catalog

KINDS = ("driver", "actor", "raylet")
CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
node = cluster.add_node(num_cpus=2)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=2)
        print("killed", flush=True)
cluster.shutdown()
"""


def descendants(pid: int) -> list[tuple[int, str]]:
    """Return (pid, title) of the processes below one, on Linux."""
    children: dict[int, list[int]] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                titles[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        queue += below
        found += [(child, titles.get(child, "")) for child in below]
    return found


def read_tables(output: str) -> dict[str, list[dict[str, Any]]]:
    """Read the tables of a scoring run, each in the order of its key."""
    found = {}
    for table, key in (("predictions", "image_id"), ("quarantine", "image_id"), ("products", "product_id")):
        rows = pq.read_table(f"{output}/{table}").to_pylist()
        found[table] = sorted(rows, key=lambda row, key=key: row[key])  # type: ignore[misc]
    return found


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, numbers to 1e-4."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return abs(one - other) < 1e-4 if isinstance(one, float) and isinstance(other, float) else bool(one == other)


class Bench:
    """One catalogue, one model, and the tables that a run of it must give."""

    def __init__(self, scratch: str, count: int, backbone: str, image_size_px: int) -> None:
        self.scratch, self.count = scratch, count
        files = pictures(None, min(count, 160), f"{scratch}/shop")
        uris = [str(files[n % len(files)]) if n % 50 else f"{scratch}/missing/{n}.jpg" for n in range(count)]
        write_catalog(f"{scratch}/catalog", uris)
        _number_within_products(f"{scratch}/catalog/images/part-00000.parquet")
        random_model(f"{scratch}/model", backbone, image_size_px=image_size_px, dim=64)
        assert self.run("whole").wait() == 0
        self.wanted = self.tables("whole")
        seconds = json.loads(Path(scratch, "whole", "run.json").read_text())["seconds"]
        self.stream_s = seconds["first_read_to_last_write"]

    def run(self, name: str, address: str = "") -> "subprocess.Popen[bytes]":
        """Start the command; its output goes to a folder of the scratch."""
        command = [sys.executable, "-m", "atlas_ray", "score", "--catalog", f"{self.scratch}/catalog"]
        command += ["--model", f"{self.scratch}/model", "--output", f"{self.scratch}/{name}"]
        command += ["--precision", "float32", "--batch-size", "16", "--rows-per-file", "64"]
        environment = dict(os.environ, **({"RAY_ADDRESS": address} if address else {}))
        log = open(f"{self.scratch}/{name}.log", "ab")  # noqa: SIM115 - the process owns it
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def tables(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """Read what a run wrote."""
        return read_tables(f"{self.scratch}/{name}")

    def case(self, kind: str, moment: float, name: str) -> str:
        """Kill once, `moment` (0 to 1) of the stream's time after its first commit; run again."""
        cluster = None
        address = ""
        if kind == "raylet":
            cluster = subprocess.Popen(
                [sys.executable, "-c", CLUSTER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert cluster.stdout is not None
            assert cluster.stdin is not None
            address = cluster.stdout.readline().decode().strip()
        try:
            output = f"{self.scratch}/{name}"
            run = self.run(name, address)
            end = time.monotonic() + 300
            while rows_done(output) == 0 and run.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(moment * self.stream_s * 0.7)
            done = rows_done(output)
            if kind == "driver":
                run.kill()
            elif kind == "actor":
                actors = [pid for pid, title in descendants(run.pid) if "Predict" in title]
                if actors:
                    os.kill(random.choice(actors), signal.SIGKILL)
            elif cluster is not None and cluster.stdin is not None and cluster.stdout is not None:
                cluster.stdin.write(b"kill\n")
                cluster.stdin.flush()
                cluster.stdout.readline()
            first = run.wait()
            again = self.run(name, address).wait()
            assert again == 0, f"the second run ended with {again}; see {output}.log"
            return self.compare(name, f"killed with {done} of {self.count} committed, first run ended with {first}")
        finally:
            if cluster is not None and cluster.stdin is not None:
                cluster.stdin.close()
                try:
                    cluster.wait(30)
                except subprocess.TimeoutExpired:
                    cluster.kill()

    def compare(self, name: str, what: str) -> str:
        """Hold a run's tables against the uninterrupted run's."""
        got = self.tables(name)
        outcomes = [row["image_id"] for table in ("predictions", "quarantine") for row in got[table]]
        wanted = {row["image_id"] for table in ("predictions", "quarantine") for row in self.wanted[table]}
        lost, twice = len(wanted - set(outcomes)), len(outcomes) - len(set(outcomes))
        equal = all(same(got[table], self.wanted[table]) for table in got)
        line = f"{what}; lost {lost}, twice {twice}, tables {'equal' if equal else 'DIFFERENT'}"
        assert lost == twice == 0, line
        assert equal, line
        return line


def _number_within_products(images: str) -> None:
    """Give every product two pictures, whose ids are 0 and 1."""
    table = pq.read_table(images)
    row = np.arange(len(table))
    owners = table["product_id"].take(pa.array(row // 2 * 2))
    pq.write_table(table.set_column(0, "image_id", pa.array(row % 2)).set_column(1, "product_id", owners), images)
