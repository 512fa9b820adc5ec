"""Disturbs one scoring run on a cluster of two nodes with random events, and compares it with an undisturbed run.

    python -m benchmarks.chaos [--events 100] [--pictures 20000] [--seed N] [--down-s 20] [--full-s 5] [--limit-s S]

Nodes, driver and workers are processes of this machine. Catalogue and pictures are in an S3 server; the output is on a
small disk of its own, which only root can mount: for others the disk is never full. A command that ends is started
again, the same one. The seed draws the kinds of the events and their moments, by the share of the pictures that are
committed; the same seed plays the same events, though no two runs of a machine are the same.

It passes if no picture is lost, none is there twice, the tables are those of the undisturbed run (probabilities to
1e-4), none is in quarantine, nothing is left behind, and only what has to end the command ended it. The script itself
ends within --limit-s, and ends each process that it started, by its id.
"""

import argparse
import ctypes
import json
import logging
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import boto3
import pyarrow.parquet as pq
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from atlas_ray.runtime.checkpoint import CHECKPOINT, PENDING
from atlas_ray.runtime.stops import stoppable
from tests.support.cluster import Cluster, Node, head, wait_until
from tests.support.inputs import free_port, pictures, random_model, write_catalog
from tests.support.kills import descendants, read_tables, same

DISTINCT = 160
"""Number of different pictures; the catalogue has each many times."""
POLL_S = 0.2
MAX_DELAY_S = 5.0
"""An event happens up to this long after its share of the pictures is committed."""
NOT_WORKERS = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
SUBREAPER = 36
"""Linux's `PR_SET_CHILD_SUBREAPER`."""


@dataclass(frozen=True)
class Event:
    """What happens, and when."""

    kind: str
    share: float
    """The share of the pictures that are committed before."""
    delay_s: float
    """The time to wait from then on."""


def draw_events(chance: random.Random, count: int, kinds: list[str]) -> list[Event]:
    """Draw events by their moments, of each kind about as many."""
    rounds = [chance.sample(kinds, len(kinds)) for _ in range(-(-count // len(kinds)))]
    shares = sorted(chance.random() for _ in range(count))
    drawn = [kind for kinds in rounds for kind in kinds][:count]
    return [Event(kind, share, chance.uniform(0, MAX_DELAY_S)) for kind, share in zip(drawn, shares, strict=True)]


class _OneRequest(MotoRequestHandler):
    """Answers one request a connection, so that a server that is down answers none."""

    protocol_version = "HTTP/1.0"


class Store:
    """An S3 server in threads of this process; it keeps its objects while it is down."""

    def __init__(self) -> None:
        self._port = free_port()
        self._server: BaseWSGIServer | None = None
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        os.environ.update(AWS_ENDPOINT_URL=f"http://127.0.0.1:{self._port}", AWS_REGION="us-east-1")
        os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
        self.start()

    def start(self) -> None:
        """Listen again, if it is down."""
        if self._server is None:
            app = DomainDispatcherApplication(create_backend_app)
            self._server = make_server("127.0.0.1", self._port, app, threaded=True, request_handler=_OneRequest)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None


class Chaos:
    """A catalogue and a model on a cluster, and the command that scores them as it is disturbed."""

    def __init__(self, scratch: str, cluster: Cluster, store: Store, options: argparse.Namespace) -> None:
        self.scratch, self.cluster, self.store, self.options = scratch, cluster, store, options
        self.chance = random.Random(options.seed)
        self.kinds = [kind for kind in KINDS if kind != FULL_DISK or os.path.ismount(f"{scratch}/disk")]
        self.began = time.monotonic()
        self.output = f"{scratch}/disk/run"
        self.node = cluster.start_node(2)
        self.extra: Node | None = None
        self.later: list[tuple[float, Callable[[], None]]] = []
        """What is to be done, and when."""
        self.ending = False
        """Whether an event has ended the command that runs."""
        self.starts = 0
        self.rows: dict[str, int] = {}
        """Number of pictures in each file of the checkpoint."""
        self.by_itself: list[str] = []
        """How the command ended where nothing had to end it."""
        self.finished = False
        files = pictures(None, min(options.pictures, DISTINCT), f"{scratch}/shop")
        client = boto3.client("s3")
        client.create_bucket(Bucket="shop")
        for number, file in enumerate(files):
            client.upload_file(str(file), "shop", f"pictures/{number}.jpg")
        uris = [f"s3://shop/pictures/{number % len(files)}.jpg" for number in range(options.pictures)]
        write_catalog("s3://shop/catalog", uris)
        random_model(f"{scratch}/model", "resnet18", image_size_px=32, dim=32)

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def start(self, output: str) -> None:
        """Start the command; its messages go to a log."""
        command = [sys.executable, "-m", "atlas_ray", "score", "--catalog", "s3://shop/catalog", "--output", output]
        command += ["--model", f"{self.scratch}/model", "--precision", "float32", "--batch-size", "16"]
        command += ["--rows-per-file", "64", "--workers", "2"]
        with open(f"{self.scratch}/log", "ab") as log:
            self.driver = subprocess.Popen(command, env=self.cluster.driving, stdout=log, stderr=log)
        self.starts += 1

    def undisturbed(self) -> dict[str, list[dict[str, Any]]]:
        """Run the command without any event, and return its tables."""
        wait_until(self.node.has_joined, 120)
        self.start(f"{self.scratch}/whole")
        if self.driver.wait() != 0:
            raise SystemExit(f"the undisturbed run failed: {self.last_line()}")
        self.starts = 0
        return read_tables(f"{self.scratch}/whole")

    def play(self) -> int:
        """Disturb the command until it is done, and return the number of events that came before."""
        events = draw_events(self.chance, self.options.events, self.kinds)
        self.start(self.output)
        for number, event in enumerate(events, 1):
            if not (what := self._play_one(event)):
                return number - 1
            self.say(f"event {number}/{len(events)}: {what}; {self.committed()} of {self.options.pictures} committed")
        self.wait(lambda: False)
        return len(events)

    def _play_one(self, event: Event) -> str:
        """Let an event happen at its moment, and return what it did; "" if the command is done before."""
        self.wait(lambda: self.committed() >= event.share * self.options.pictures)
        at = time.monotonic() + event.delay_s
        self.wait(lambda: time.monotonic() >= at)
        return "" if self.finished else KINDS[event.kind](self)

    def wait(self, until: Callable[[], bool]) -> None:
        """Keep the command going until a condition holds, or it is done."""
        while not self.finished and not until():
            for due in [due for due in self.later if due[0] <= time.monotonic()]:
                self.later.remove(due)
                due[1]()
            if (code := self.driver.poll()) is not None:
                self.finished = code == 0
                if not self.finished:
                    self._start_again(code)
            time.sleep(POLL_S)

    def _start_again(self, code: int) -> None:
        line = f"ended with {code}: {self.last_line()[:300]}"
        self.say(f"  {line}")
        if not self.ending:
            self.by_itself.append(line)
        self.ending = os.path.exists(self.filler)
        self.start(self.output)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later, while the command goes on."""
        self.later.append((time.monotonic() + seconds, action))

    def committed(self) -> int:
        """Count the pictures that are committed; each file is looked at once."""
        folder = Path(self.output, CHECKPOINT)
        names = {path.name for path in folder.glob("*.parquet") if not path.name.endswith(PENDING)}
        for name in names - self.rows.keys():
            with suppress(OSError):  # a finished run deletes them
                self.rows[name] = pq.read_metadata(folder / name).num_rows
        return sum(self.rows.get(name, 0) for name in names)

    def last_line(self) -> str:
        """Return what the command said last."""
        lines = Path(self.scratch, "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing was said"

    @property
    def filler(self) -> str:
        """The file that fills the disk."""
        return f"{self.scratch}/disk/filler"

    def workers(self) -> list[tuple[int, str]]:
        """Return the (pid, title) of Ray's processes that work for the command, but for those of a node itself.

        A raylet ends with its agents; without the one on the driver's machine no command goes on.
        """
        found = descendants(os.getpid())
        return sorted(one for one in found if one[1].startswith("ray::") and not one[1].startswith(NOT_WORKERS))

    def verdict(self, wanted: dict[str, list[dict[str, Any]]], played: int) -> tuple[str, bool]:
        """Hold the run against the undisturbed one; return a line, and whether all is well."""
        tables = read_tables(self.output)
        ids = [row["image_id"] for row in (*tables["predictions"], *tables["quarantine"])]
        lost = len({row["image_id"] for row in wanted["predictions"]} - set(ids))
        twice = len(ids) - len(set(ids))
        equal = all(same(tables[name], wanted[name]) for name in wanted)
        failed = len(tables["quarantine"])
        names = (path.name for path in Path(self.output).rglob("*"))
        left = [name for name in names if name in ("lease.json", "checkpoint") or name.endswith(".partial")]
        counts = json.loads(Path(self.output, "run.json").read_text())["counts"]
        balanced = counts["input"] == counts["scored"] == self.options.pictures
        tracebacks = Path(self.scratch, "log").read_text(errors="replace").count("Traceback (most recent call last)")
        line = (
            f"{played} events over {self.options.pictures} pictures, {self.starts} starts of the command: lost {lost}, "
            f"twice {twice}, in quarantine {failed}, tables {'equal' if equal else 'DIFFERENT'}, account "
            f"{'balanced' if balanced else counts}, left behind {len(left)}, ended by itself {len(self.by_itself)}, "
            f"tracebacks {tracebacks}"
        )
        well = equal and balanced and played == self.options.events
        return line, well and not (lost or twice or failed or left or self.by_itself or tracebacks)


def end_driver(chaos: Chaos, how: signal.Signals) -> str:
    """Signal the command, which is then started again."""
    chaos.ending = True
    chaos.driver.send_signal(how)
    return f"{how.name} of the driver, process {chaos.driver.pid}"


def kill_worker(chaos: Chaos) -> str:
    """Kill one of Ray's processes that work for the command."""
    found = chaos.workers()
    if not found:
        return "SIGKILL of a worker: none is there"
    pid, title = chaos.chance.choice(found)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return f"SIGKILL of a worker, {title.strip()}, process {pid}"


def kill_raylet(chaos: Chaos) -> str:
    """Kill the raylet of the second node; a new node takes its place."""
    node, chaos.node = chaos.node, chaos.cluster.start_node(2)
    pids = [pid for pid, title in descendants(node.process.pid) if "/raylet/raylet" in title.split(" ")[0]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    chaos.after(30, node.kill)
    return f"SIGKILL of a raylet, process {pids[0]}" if pids else "SIGKILL of a raylet: it has not started yet"


def change_nodes(chaos: Chaos) -> str:
    """Add a third node, or remove it."""
    if chaos.extra is None:
        chaos.extra = chaos.cluster.start_node(2)
        return "a node is added"
    node, chaos.extra = chaos.extra, None
    node.process.terminate()
    chaos.after(30, node.kill)
    return "a node is removed"


def stop_store(chaos: Chaos) -> str:
    """Take the S3 server down for some seconds."""
    chaos.store.stop()
    chaos.after(chaos.options.down_s, chaos.store.start)
    return f"the store is down for {chaos.options.down_s:.0f} s"


def fill_disk(chaos: Chaos) -> str:
    """Fill the output's disk for some seconds."""
    with suppress(OSError), open(chaos.filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    chaos.ending = True
    chaos.after(chaos.options.full_s, lambda: Path(chaos.filler).unlink(missing_ok=True))
    return f"the disk is full for {chaos.options.full_s:.0f} s"


FULL_DISK = "full disk"
KINDS: dict[str, Callable[[Chaos], str]] = {
    "killed driver": lambda chaos: end_driver(chaos, signal.SIGKILL),
    "stopped driver": lambda chaos: end_driver(chaos, signal.SIGTERM),
    "killed worker": kill_worker,
    "killed raylet": kill_raylet,
    "node": change_nodes,
    "store": stop_store,
    FULL_DISK: fill_disk,
}
"""What may happen: each does it, and returns what it did."""


@contextmanager
def small_disk(folder: str, pictures: int) -> Iterator[None]:
    """Mount a disk in memory with room for a run's tables; without the right to, there is just a folder."""
    os.makedirs(folder)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={64 * 2**20 + 4096 * pictures}", "tmpfs", folder]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not mounted:
        print("skipped: the full disk, which takes root to mount a small one", flush=True)
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def all_ended() -> Iterator[None]:
    """End each process that the block starts, also one whose parent has died."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # orphans become children of this process
    try:
        yield
    finally:
        while below := descendants(os.getpid()):
            for pid, _ in below:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(POLL_S)


def out_of_time(*_: int | FrameType | None) -> None:
    """End the script."""
    raise TimeoutError("the limit of --limit-s is over")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--down-s", type=float, default=20.0, help="seconds that the store is down")
    parser.add_argument("--full-s", type=float, default=5.0, help="seconds that the disk is full")
    parser.add_argument("--limit-s", type=int, help="default: 300 s, 60 s an event, and 50 ms a picture")
    parser.add_argument("--keep-log", help="file to copy the command's messages to")
    options = parser.parse_args()
    options.limit_s = options.limit_s or 300 + 60 * options.events + options.pictures // 20
    print(f"seed {options.seed}; ends within {options.limit_s} s", flush=True)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(options.limit_s)
    with (
        stoppable(),
        tempfile.TemporaryDirectory(prefix="atlas-ray-chaos-", ignore_cleanup_errors=True) as scratch,
        small_disk(f"{scratch}/disk", options.pictures),
        all_ended(),
    ):
        token = Path(scratch, "token")
        token.write_text(secrets.token_hex(32))
        store = Store()
        with head(token, dashboard=False) as cluster, all_ended():
            chaos = Chaos(scratch, cluster, store, options)
            try:
                wanted = chaos.undisturbed()
                chaos.say("the undisturbed run is done")
                played = chaos.play()
                line, well = chaos.verdict(wanted, played)
            finally:
                if options.keep_log and (log := Path(scratch, "log")).exists():
                    Path(options.keep_log).write_bytes(log.read_bytes())
    print(line)
    print("passed" if well else "FAILED", flush=True)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
