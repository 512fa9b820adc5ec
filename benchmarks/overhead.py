"""CPU seconds and memory of `atlas-ray score` by the kind of its processes: what runs beside the model.

    python -m benchmarks.overhead [--pictures 10000 30000] [--backbone resnet34] [--images FOLDER]
    python -m benchmarks.overhead --start [--backbone resnet34]

The first form scores two catalogues with a stub in place of decoding and the model, then the first of them with a stub
that takes `--pace` pictures a second; with `--backbone` also with a model of that shape. A row is a kind of process,
its columns

- fixed: CPU seconds that no picture adds, the start of the processes among them, from a line through both sizes;
- per 1,000: CPU seconds that 1,000 pictures add, from the same line;
- cores: CPU seconds that each second of waiting for a slow model adds, from the run at a pace;
- MiB: the most memory that a process of this kind held, without what it shares with the object store.

`beside` is the sum of all kinds but the one with the model. The second form prints when a command came to what, in
seconds from its begin to the first answer: with a Ray of its own, and on a Ray that is up.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

KINDS = {
    r"ray/raylet/raylet ": "raylet",
    r"ray/gcs/gcs_server ": "gcs",
    r"ray::(Dashboard|RuntimeEnv)Agent": "agents",
    r"ray::.*Predict": "predict",
    r"ray::.*Fetch": "fetch",
    r"ray::.*Progress": "progress",
    r"ray::.*Write": "write",
    r"ray::.*(Tables|Repartition)": "read",
    r"ray::.*(Stats|Coordinator|Tracker)": "Ray Data",
    r"ray::(?!IDLE).+": "other tasks",
    r"default_worker\.py|ray::IDLE": "idle",
}
"""The kinds of processes, by a pattern of their command line; a process keeps the last one that is not `idle`."""
MODEL = "predict"
EVERY_S = 0.1
START_PICTURES = 1000
MARKS, PACE = "OVERHEAD_MARKS", "OVERHEAD_PACE"
"""Variables of the environment: the file of moments, and pictures a second of the stub."""


class Processes(threading.Thread):
    """Looks at a process and all that it starts, until it ends: CPU seconds and memory by kind."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root, self._kind = pid, {pid: "driver"}
        self._spent: dict[int, float] = {}
        self.cpu_s: dict[str, float] = defaultdict(float)
        """CPU seconds by kind."""
        self.mib: dict[str, float] = defaultdict(float)
        """The most memory of a process by kind."""
        self.with_torch: set[str] = set()
        """Kinds of processes that PyTorch was loaded in."""

    def run(self) -> None:
        """Look until the process is gone; at the memory at each tenth look, since that holds the processes up."""
        looks = 0
        while self.look(memory=looks % 10 == 0):
            looks += 1
            time.sleep(EVERY_S)

    def look(self, *, memory: bool) -> bool:
        """Look once; tell whether the process is still there."""
        parents = {int(entry): _fields(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
        for pid, fields in parents.items():
            if fields and self._is_started(pid, parents):
                self._count(pid, fields)
                if memory:
                    self._weigh(pid)
        root = parents.get(self._root)
        return root is not None and root[:1] not in ([], ["Z"])

    def _is_started(self, pid: int, parents: Mapping[int, Sequence[str]]) -> bool:
        while pid > 1 and pid != self._root:
            if pid in self._kind:  # its parent may have gone
                return True
            fields = parents.get(pid)
            pid = int(fields[1]) if fields else 0
        return pid == self._root

    def _count(self, pid: int, fields: Sequence[str]) -> None:
        if pid != self._root:
            line = _text(f"/proc/{pid}/cmdline").replace("\0", " ")
            kind = next((kind for pattern, kind in KINDS.items() if re.search(pattern, line)), "other")
            if kind != "idle" or pid not in self._kind:
                self._kind[pid] = kind
        kind = self._kind[pid]
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self.cpu_s[kind] += spent - self._spent.get(pid, 0.0)
        self._spent[pid] = spent

    def _weigh(self, pid: int) -> None:
        kind = self._kind[pid]
        held = re.findall(r"^Rss(?:Anon|File):\s*(\d+)", _text(f"/proc/{pid}/status"), re.MULTILINE)
        self.mib[kind] = max(self.mib[kind], sum(map(int, held)) / 1024)
        if kind not in self.with_torch and "libtorch" in _text(f"/proc/{pid}/maps"):
            self.with_torch.add(kind)


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on: state, parent, ..., CPU time of user and system."""
    return _text(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # the process has gone
        return ""


def mark(moments: str | None, moment: str, at: float | None = None) -> None:
    """Write down in a file, if there is one, when a process came to something, now by default."""
    if moments:
        with Path(moments).open("a") as file:
            file.write(f"{time.time() if at is None else at} {moment}\n")


def began(pid: int) -> float:
    """Return when a process was started, by the clock."""
    ticks = int(_fields(pid)[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - float(_text("/proc/uptime").split()[0]) + ticks


def _patches(moments: str | None, *, stub: bool) -> dict[str, Any]:
    """Return the classes of the stages by name, with marks; a Ray that is up does not know this process's variables."""
    from atlas_ray.runtime.fetch import Fetch

    pace = float(os.environ.get(PACE, 0))

    class MarkedFetch(Fetch):
        def __call__(self, table: Any) -> Any:
            mark(moments, "first picture read")
            return super().__call__(table)

    if stub:
        from benchmarks.score_scale import StubPredict

        class PacedPredict(StubPredict):
            def __call__(self, table: Any) -> Any:
                if pace:
                    time.sleep(len(table) * (os.cpu_count() or 1) / pace)
                return super().__call__(table)

        return {"Fetch": MarkedFetch, "Predict": PacedPredict}
    from atlas_ray.scoring.predict import Predict

    class MarkedPredict(Predict):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            mark(moments, "model's process started", began(os.getpid()))
            mark(moments, "model's process imported")
            super().__init__(*arguments, **named)
            mark(moments, "model loaded and warm")

        def __call__(self, table: Any) -> Any:
            answered = super().__call__(table)
            mark(moments, "first answer")
            return answered

    return {"Fetch": MarkedFetch, "Predict": MarkedPredict}


def once(arguments: Sequence[str], *, stub: bool) -> int:
    """Run `score` in this process, with marks and perhaps a stub."""
    moments = os.environ.get(MARKS)
    mark(moments, "Python started", began(os.getpid()))
    from atlas_ray.runtime import pictures
    from atlas_ray.runtime.job import Job
    from atlas_ray.runtime.session import connect
    from atlas_ray.scoring import run as scoring

    mark(moments, "command imported")
    classes = _patches(moments, stub=stub)
    pin = Job.pin

    def connected() -> None:
        mark(moments, "inputs written")
        connect()
        mark(moments, "Ray started")

    def pinned(self: Job, identity: Mapping[str, Any]) -> None:
        pin(self, identity)
        mark(moments, "settings checked")

    with (
        patch.object(pictures, "Fetch", classes["Fetch"]),
        patch.object(scoring, "Predict", classes["Predict"]),
        patch("atlas_ray.runtime.job.connect", connected),
        patch.object(Job, "pin", pinned),
    ):
        from atlas_ray.cli.main import main as command

        return command(["score", *arguments])


def run(catalog: str, model: str, output: str, *, stub: bool, **environment: str) -> tuple[Processes, float]:
    """Score in a process of its own; return what its processes took, and the seconds of the command."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--once", "stub" if stub else "model"]
    command += ["--", "--catalog", catalog, "--model", model, "--output", output, "--max-quarantine-fraction", "1"]
    paths = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | environment
    started = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=variables)
    processes = Processes(process.pid)
    processes.start()
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors[-2000:])
    return processes, time.time() - started


def table(sizes: Sequence[int], runs: Sequence[Processes], slow: tuple[Processes, float] | None) -> list[list[Any]]:
    """Return a row for each kind, and their sum without the model's: fixed, per 1,000, cores and MiB.

    Args:
        sizes: The numbers of pictures of both runs.
        runs: What they took.
        slow: What a run of the first size at a pace took, and the seconds that it waited; None if there was none.
    """
    first, second = runs
    rows: list[list[Any]] = []
    for kind in sorted({*first.cpu_s, *second.cpu_s}):
        each = (second.cpu_s[kind] - first.cpu_s[kind]) / (sizes[1] - sizes[0])
        cores = (slow[0].cpu_s[kind] - first.cpu_s[kind]) / slow[1] if slow else 0.0
        rows.append([kind, first.cpu_s[kind] - each * sizes[0], 1000 * each, cores, second.mib[kind]])
    beside = [row for row in rows if row[0] != MODEL]
    return [*rows, ["beside", *(sum(row[at] for row in beside) for at in (1, 2, 3)), max(row[4] for row in beside)]]


def phases(moments: str) -> list[tuple[float, str]]:
    """Return the first time of each moment that was marked, in seconds from the first one, in their order."""
    first: dict[str, float] = {}
    for line in moments.splitlines():
        at, _, moment = line.partition(" ")
        first[moment] = min(first.get(moment, float("inf")), float(at))
    begin = min(first.values())
    return sorted((at - begin, moment) for moment, at in first.items())


def _show_overhead(options: argparse.Namespace, scratch: Path) -> None:
    from tests.support.inputs import pictures, random_model, write_catalog

    files = [str(file) for file in pictures(options.images, 200, str(scratch / "shop"))]
    sizes = sorted(options.pictures)
    for size in sizes:
        write_catalog(str(scratch / f"catalog{size}"), [files[number % len(files)] for number in range(size)])
    for backbone in [None, *([options.backbone] if options.backbone else [])]:
        model = str(scratch / f"model-{backbone}")
        random_model(model, backbone or "resnet18")
        runs, walls = [], []
        for size in sizes:
            found, wall = run(str(scratch / f"catalog{size}"), model, f"{scratch}/{backbone}{size}", stub=not backbone)
            runs.append(found)
            walls.append(wall)
        slow = None
        if backbone is None:
            pace = {PACE: str(options.pace)}
            found, wall = run(str(scratch / f"catalog{sizes[0]}"), model, f"{scratch}/slow", stub=True, **pace)
            slow = found, wall - walls[0]
        took = ", ".join(f"{wall:.1f} s for {size:,}" for size, wall in zip(sizes, walls, strict=True))
        print(f"\n{backbone or 'a stub'}: {took} pictures")
        print(f"{'':14}{'fixed':>9}{'per 1,000':>11}{'cores':>8}{'MiB':>7}")
        for kind, fixed, each, cores, mib in table(sizes, runs, slow):
            print(f"{kind:14}{fixed:9.2f}{each:11.3f}{cores:8.3f}{mib:7.0f}", flush=True)


def _show_start(options: argparse.Namespace, scratch: Path) -> None:
    from atlas_ray.runtime.session import connect
    from tests.support.inputs import pictures, random_model, write_catalog

    model, catalog = str(scratch / "model"), str(scratch / "catalog")
    random_model(model, options.backbone or "resnet34")
    files = [str(file) for file in pictures(options.images, 200, str(scratch / "shop"))]
    write_catalog(catalog, [files[number % len(files)] for number in range(START_PICTURES)])
    for number in range(2 * options.repeats):
        title, address = "a Ray of its own", {}
        if number >= options.repeats:
            import ray

            connect()
            title, address = "on a Ray that is up", {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        marks = scratch / f"marks{number}"
        run(catalog, model, str(scratch / f"run{number}"), stub=False, **address, **{MARKS: str(marks)})
        print(f"\n{title}")
        before = 0.0
        for at, moment in phases(marks.read_text()):
            print(f"{at:8.2f} {at - before:+8.2f}  {moment}", flush=True)
            before = at


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs=2, default=[10_000, 30_000], help="numbers of pictures")
    parser.add_argument("--backbone", help="measure a model of this shape, too")
    parser.add_argument("--images", help="a folder of JPEG files; a sample is drawn where none is given")
    parser.add_argument("--pace", type=float, default=200.0, help="pictures a second of the slow stub")
    parser.add_argument("--start", action="store_true", help="print the phases of a start instead")
    parser.add_argument("--repeats", type=int, default=2, help="starts of each kind")
    parser.add_argument("--once", choices=("stub", "model"), help=argparse.SUPPRESS)  # a process of its own: see `run`
    parser.add_argument("score_flags", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        raise SystemExit(once(options.score_flags, stub=options.once == "stub"))
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        (_show_start if options.start else _show_overhead)(options, Path(scratch))


if __name__ == "__main__":
    main()
