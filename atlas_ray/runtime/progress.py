"""Progress of long work, which the driver shows and to which workers report through an actor."""

import resource
import sys
import threading
import time
from collections import Counter
from typing import Any, Self

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class ProgressActor:
    """An actor that collects what workers report. A restarted one starts from zero, which only affects the display."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lines: list[str] = []
        self._spans: dict[str, tuple[float, float, float]] = {}
        self._peaks: dict[str, float] = {}
        self._lost = 0

    def add(self, counts: dict[str, int]) -> None:
        """Count done items, by outcome."""
        self._counts.update(counts)

    def say(self, line: str) -> None:
        """Add a line to print."""
        self._lines.append(line)

    def block(self, counts: dict[str, int], spans: dict[str, tuple[float, float]], memory_mib: float) -> None:
        """Count the items of a block by outcome, and add the time in which each stage was busy with it.

        Args:
            counts: Done items by outcome.
            spans: The start and the end of each stage, by the clock.
            memory_mib: The most memory that their process has held.
        """
        self._counts.update(counts)
        if counts:
            self._lost = 0
        for stage, (start, end) in spans.items():
            self._peaks[stage] = max(self._peaks.get(stage, 0.0), memory_mib)
            first, last, busy = self._spans.get(stage, (start, end, 0.0))
            self._spans[stage] = (min(first, start), max(last, end), busy + end - start)

    def lost(self, line: str) -> int:
        """Print a line about a lost device; return how many were lost since the last block was done."""
        self._lines.append(line)
        self._lost += 1
        return self._lost

    def spans(self) -> dict[str, tuple[float, float, float]]:
        """Return the first start, the last end and the busy seconds of each stage."""
        return self._spans

    def peaks(self) -> dict[str, float]:
        """Return the most memory in MiB that a process of each stage has held."""
        return self._peaks

    def read(self) -> tuple[dict[str, int], list[str]]:
        """Return the counts, and the lines since the last call."""
        lines, self._lines = self._lines, []
        return dict(self._counts), lines


def tell_block(progress: Any, counts: dict[str, int], **spans: tuple[float, float]) -> None:
    """Report a block to the `ProgressActor`, in one message: a message costs both processes a millisecond.

    Args:
        progress: The actor.
        counts: Done items by outcome; {} if a later stage counts them.
        spans: The start and the end of each stage, by the clock.
    """
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    progress.block.remote(counts, spans, held / (2**20 if sys.platform == "darwin" else 2**10))


class ProgressDisplay:
    """A display of progress inside its `with` block: a bar on a terminal, plain lines in a log.

    The driver counts with `add`; workers report to `actor`.
    """

    def __init__(self, title: str, unit: str, *, total: int | None = None, done: int = 0) -> None:
        """Prepare the display.

        Args:
            title: What is being done.
            unit: The items that are counted, in the plural.
            total: The number of items; without it only lines are shown.
            done: The number of items that an earlier run did.
        """
        self._actor: Any = None
        self._own = Counter[str]()
        self._title, self._unit, self._total, self._done = title, unit, total, done
        self._console = Console(stderr=True)
        self._first_done, self._first_at = 0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    @property
    def actor(self) -> Any:
        """The `ProgressActor`, which is started when it is first used; pass it to workers.

        They call `actor.add.remote({...})` with counts of done items by outcome, `actor.say.remote(line)` to print a
        line, and `tell_block`, which counts and measures.
        """
        if self._actor is None:
            # Beside the driver, which asks it: a machine that may leave would take what it has counted along.
            here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
            make = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
            self._actor = make(ProgressActor).remote()
        return self._actor

    def add(self, counts: dict[str, int]) -> None:
        """Count done items, by outcome."""
        self._own.update(counts)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def spans(self) -> dict[str, tuple[float, float, float]]:
        """Return the first start, the last end and the busy seconds of each stage."""
        try:
            spans: dict[str, tuple[float, float, float]] = ray.get(self.actor.spans.remote(), timeout=30)
        except RayError:
            return {}
        return spans

    def peaks(self) -> dict[str, float]:
        """Return the most memory in MiB that a process of each stage has held."""
        try:
            peaks: dict[str, float] = ray.get(self.actor.peaks.remote(), timeout=30)
        except RayError:
            return {}
        return peaks

    def _run(self) -> None:
        if self._total is None or not self._console.is_terminal:
            self._plain()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(self._title, total=self._total, completed=self._done, rate="")
            while True:
                last = self._stop.wait(0.5)
                counts, lines = self._read()
                for line in lines:
                    bar.console.print(line, markup=False, highlight=False, emoji=False)
                new = self._new(counts)
                bar.update(task, completed=self._done + new, rate=f"{self._rate(new):.0f} {self._unit}/s")
                if last:
                    return

    def _plain(self) -> None:
        shown = time.monotonic()
        while True:
            last = self._stop.wait(1.0)
            counts, lines = self._read()
            for line in lines:
                print(line, file=sys.stderr, flush=True)
            new = self._new(counts)
            if self._total and new and (last or time.monotonic() - shown >= LINE_EVERY_S):
                shown = time.monotonic()
                rate = self._rate(new)
                text = f"{self._title}: {self._done + new}/{self._total} {self._unit}"
                if rate:
                    text += f", {rate:.0f}/s, {max(self._total - self._done - new, 0) / rate:.0f} s left"
                print(text, file=sys.stderr, flush=True)
            if last:
                return

    def _new(self, counts: dict[str, int]) -> int:
        """Return how many items this run did; a block that is done again, as of a lost process, counts twice."""
        new = sum(counts.values())
        return new if self._total is None else min(new, self._total - self._done)

    def _rate(self, new: int) -> float:
        """Return items per second since the first ones were done, so that the start does not count."""
        now = time.monotonic()
        if not new:
            return 0.0
        if not self._first_done:
            self._first_done, self._first_at = new, now
        return (new - self._first_done) / max(now - self._first_at, 1e-3)

    def _read(self) -> tuple[dict[str, int], list[str]]:
        counted = dict(self._own)
        if self._actor is None:
            return counted, []
        try:
            counts, lines = ray.get(self._actor.read.remote(), timeout=5)
        except RayError:  # a failed display must not end the job
            return counted, []
        return counted | counts, lines
