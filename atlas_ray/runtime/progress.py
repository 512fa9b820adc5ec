"""Progress of long work: the driver shows what it sees done, and what workers report to a small actor."""

import sys
import threading
import time
from collections import Counter
from typing import Any, Self

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class _Board:
    """What workers reported; a restarted one starts from nothing, which only the display sees."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lines: list[str] = []
        self._spans: dict[str, tuple[float, float, float]] = {}

    def add(self, counts: dict[str, int]) -> None:
        self._counts.update(counts)

    def say(self, line: str) -> None:
        self._lines.append(line)

    def span(self, stage: str, start: float, end: float) -> None:
        first, last, busy = self._spans.get(stage, (start, end, 0.0))
        self._spans[stage] = (min(first, start), max(last, end), busy + end - start)

    def spans(self) -> dict[str, tuple[float, float, float]]:
        return self._spans

    def read(self) -> tuple[dict[str, int], list[str]]:
        lines, self._lines = self._lines, []
        return dict(self._counts), lines


class ProgressDisplay:
    """Shows progress while its `with` block runs: a bar on a terminal, plain lines in a log.

    What the driver itself sees done, it gives to `add`; workers report to `board`.
    """

    def __init__(self, title: str, unit: str, *, total: int | None = None, done: int = 0) -> None:
        """Prepare the display.

        Args:
            title: What runs.
            unit: What is counted, in the plural.
            total: How many there are; without it only lines are shown.
            done: How many an earlier run did.
        """
        self._board: Any = None
        self._own = Counter[str]()
        self._title, self._unit, self._total, self._done = title, unit, total, done
        self._console = Console(stderr=True)
        self._first_done, self._first_at = 0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    @property
    def board(self) -> Any:
        """The actor, started when it is first asked for; pass it to workers.

        They call `board.add.remote({...})` with counts of items done by outcome, `board.say.remote(line)`,
        and `board.span.remote(stage, start, end)` with times of the clock in seconds.
        """
        if self._board is None:
            self._board = ray.remote(num_cpus=0, max_restarts=-1)(_Board).remote()
        return self._board

    def add(self, counts: dict[str, int]) -> None:
        """Count items done, by outcome."""
        self._own.update(counts)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def spans(self) -> dict[str, tuple[float, float, float]]:
        """Return each stage's first start, last end, and the seconds that its workers were busy."""
        try:
            spans: dict[str, tuple[float, float, float]] = ray.get(self.board.spans.remote(), timeout=30)
        except RayError:
            return {}
        return spans

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
                new = sum(counts.values())
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
            new = sum(counts.values())
            if self._total and new and (last or time.monotonic() - shown >= LINE_EVERY_S):
                shown = time.monotonic()
                rate = self._rate(new)
                text = f"{self._title}: {self._done + new}/{self._total} {self._unit}"
                if rate:
                    text += f", {rate:.0f}/s, {max(self._total - self._done - new, 0) / rate:.0f} s left"
                print(text, file=sys.stderr, flush=True)
            if last:
                return

    def _rate(self, new: int) -> float:
        """Return items a second since the first ones were done: starting up does not count."""
        now = time.monotonic()
        if not new:
            return 0.0
        if not self._first_done:
            self._first_done, self._first_at = new, now
        return (new - self._first_done) / max(now - self._first_at, 1e-3)

    def _read(self) -> tuple[dict[str, int], list[str]]:
        own = dict(self._own)
        if self._board is None:
            return own, []
        try:
            counts, lines = ray.get(self._board.read.remote(), timeout=5)
        except RayError:  # a display must not end the job
            return own, []
        return own | counts, lines
