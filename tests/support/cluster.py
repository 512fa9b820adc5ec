"""A Ray cluster of its own on this machine, with token authentication: a head, and nodes that join and die."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.inputs import free_port, wait_for

STARTED = b"Ray runtime started"
"""What `ray start` says when it is done."""


@dataclass
class Cluster:
    """A running head."""

    dashboard: str
    """Where jobs are submitted."""
    address: str
    """Where drivers connect and nodes join."""
    metrics: str
    """What Prometheus reads."""
    folder: Path
    base: dict[str, str]

    @property
    def submitting(self) -> dict[str, str]:
        """The environment of who submits a job."""
        return self.base | {"RAY_ADDRESS": self.dashboard}

    @property
    def driving(self) -> dict[str, str]:
        """The environment of who connects."""
        return self.base | {"RAY_ADDRESS": self.address}

    def start_node(self, cpus: int) -> "Node":
        """Let a node join."""
        command = ["ray", "start", "--block", f"--address={self.address}", f"--num-cpus={cpus}"]
        port = free_port()
        command += [f"--dashboard-agent-listen-port={port}", f"--dashboard-agent-grpc-port={free_port()}"]
        said = self.folder / f"node-{port}.log"
        with said.open("wb") as log:
            return Node(subprocess.Popen(command, env=self.base, stdout=log, stderr=log, start_new_session=True), said)

    @contextmanager
    def node(self, cpus: int) -> Iterator["Node"]:
        """Let a node join; it leaves at the end, if it has not died."""
        node = self.start_node(cpus)
        try:
            yield node
        finally:
            node.kill()


@dataclass
class Node:
    """A node that joined: `ray start --block` and what it started."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def has_joined(self) -> bool:
        """Tell whether its start is over."""
        return STARTED in self.log.read_bytes()

    def kill(self) -> None:
        """End its raylet, and with it everything that runs there, without a word."""
        for pid in _descendants(self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.kill()
        self.process.wait(30)


@contextmanager
def head(token: Path, cpus: int = 4, *, dashboard: bool = True) -> Iterator[Cluster]:
    """Start a head that asks for the token; one without a dashboard starts faster, and takes no jobs."""
    web, port, metrics = free_port(), free_port(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="ar"))  # a short path: it holds sockets
    base = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",  # a busy machine takes more than the usual 30
    }
    command = ["ray", "start", "--head", "--block", f"--num-cpus={cpus}", f"--temp-dir={folder}", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={web}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}"]
    command += [f"--metrics-export-port={metrics}", f"--include-dashboard={str(dashboard).lower()}"]
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=base, stdout=log, stderr=log)
        try:
            if dashboard:
                wait_for(f"http://127.0.0.1:{web}/api/version", process, 120)
            else:
                wait_until(lambda: STARTED in (folder / "start.log").read_bytes(), 120)
            urls = (f"http://127.0.0.1:{web}", f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics")
            yield Cluster(*urls, folder, base)
        finally:
            process.terminate()  # with --block, it takes its Ray with it
            process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def processes() -> dict[int, tuple[int, str]]:
    """Return the processes of this machine: each one's parent and title."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, ValueError):
                continue  # it ended meanwhile
            found[int(entry.name)] = (parent, title.strip())
    return found


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for child, (parent, _) in processes().items():
        children.setdefault(parent, []).append(child)
    found, pending = [], [pid]
    while pending:
        pending += children.get(one := pending.pop(), [])
        found.append(one)
    return found


def replica_pids(deployment: str, within: int) -> list[int]:
    """Return the replicas of a deployment that a process of this machine started."""
    mine = set(_descendants(within))
    return [
        pid
        for pid, (_, title) in processes().items()
        if pid in mine and title.startswith("ray::ServeReplica") and deployment in title
    ]


def wait_until(wanted: Callable[[], bool], timeout_s: float = 60.0, every_s: float = 0.5) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: where it does not in time.
    """
    end = time.monotonic() + timeout_s
    while not wanted():
        if time.monotonic() > end:
            raise TimeoutError(f"{wanted} did not hold within {timeout_s:.0f} s")
        time.sleep(every_s)
