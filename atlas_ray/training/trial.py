"""A trial of a search: a training whose epochs Ray Tune follows and may end."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
import ray.train
import ray.tune
from ray.util.queue import Queue
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from atlas_ray.io import storage
from atlas_ray.training.fusion import train_fusion
from atlas_ray.training.run import train
from atlas_ray.training.settings import FusionTraining, TrainConfig

END_S = 60.0
"""How long a training that is stopped may take to end its workers."""


def trial_folder(output: str, trial: int) -> str:
    """Return where a trial's model goes."""
    return storage.join(output, "trials", str(trial))


def trial_record(output: str, trial: int) -> str:
    """Return the file of what a trial told Ray Tune so far."""
    return storage.join(output, "trials", f"{trial}.json")


class Trial(ray.tune.Trainable):
    """A training in a thread, of which each step returns the next epoch.

    A trial that a stopped search ran before tells again what it told then, so that Ray Tune's
    scheduler is where it was, and trains on from there.

    Ray's own bridge (a trial that is a function, and `TuneReportCallback`) is not used, for two
    reasons: it waits forever where a training ends while a report is on its way, and what it stops is
    killed, which leaves the workers' CPUs and GPUs taken where Ray runs without its dashboard.
    """

    def setup(  # type: ignore[override]  # with_parameters adds them
        self, config: Mapping[str, int], training: TrainConfig, drawn: Sequence[Mapping[str, float]], board: Any
    ) -> None:
        """Prepare to train.

        Args:
            config: `trial`, its number, from 1.
            training: All the settings that are not searched; the output is the search's.
            drawn: The searched settings of every trial.
            board: Where lines for the terminal go.
        """
        number = config["trial"]
        chosen: Mapping[str, Any] = drawn[number - 1]
        folder = trial_folder(training.output, number)
        self._training = replace(training, output=folder, checkpoint_steps=0, **chosen)
        self._record = trial_record(training.output, number)
        self._told: list[dict[str, Any]] = []
        if storage.exists(self._record):
            self._told = json.loads(storage.read_bytes(self._record))
        self._again = list(self._told)
        self._board, self._name = board, f"trial {number}/{len(drawn)}"
        self._start = f"{self._name}: " + ", ".join(f"{name} {value:.3g}" for name, value in chosen.items())
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._asked = False

    def step(self) -> dict[str, Any]:
        """Let the training go on, and return its next epoch."""
        if self._again:
            return self._again.pop(0)
        if self._thread is None:
            self._board.say.remote(self._start)
            self._reports, self._answers = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
            self._thread = threading.Thread(target=self._train, daemon=True)
            self._thread.start()
        self._answer(go_on=True)
        report: dict[str, Any] | None = self._reports.get()
        if report is None:
            assert self._error is not None
            raise self._error
        self._told.append(report)
        storage.write_bytes(self._record, json.dumps(self._told).encode())
        self._asked = "done" not in report
        return report

    def cleanup(self) -> None:
        """End the training where it still goes."""
        self._answer(go_on=False)
        if self._thread is not None:
            self._thread.join(timeout=END_S)

    def _answer(self, *, go_on: bool) -> None:
        if self._asked:
            self._asked = False
            self._answers.put(go_on)

    def _train(self) -> None:
        last = None
        best = max((report["val_accuracy"] for report in self._told), default=0.0)
        watcher = Watcher(self._name, self._training.epochs, best, self._reports, self._answers, self._board)
        try:
            if isinstance(self._training, FusionTraining):
                # It asks the models by itself, which takes more than the trial's own share of the cluster.
                nowhere: Any = None
                free = PlacementGroupSchedulingStrategy(placement_group=nowhere)
                apart: Any = ray.remote(num_cpus=0, scheduling_strategy=free)(train_fusion)
                found = ray.get(apart.remote(self._training, callbacks=[watcher])).metrics
            else:
                found = train(self._training, callbacks=[watcher]).metrics
            last = {"val_accuracy": figure_of(found), "epoch": len(found["history"])}
            last |= {"finished": True, "done": True}
        except Exception as error:
            self._error = error
        self._reports.put(last)


def figure_of(found: Mapping[str, Any]) -> float | None:
    """Return what trials are compared by: the accuracy, or of a model of labels the micro-F1."""
    figure: float | None = found.get("val_accuracy", found.get("val_micro_f1"))
    return figure


class Watcher(ray.train.UserCallback):
    """Tells a trial of the epochs; it lives in the process that controls the training."""

    def __init__(self, trial: str, epochs: int, best: float, reports: Queue, answers: Queue, board: Any) -> None:
        self._trial, self._epochs, self._reports, self._answers, self._board = trial, epochs, reports, answers, board
        self._best = best

    def after_report(
        self,
        run_context: Any,  # noqa: ARG002
        metrics: Sequence[Mapping[str, Any]],
        checkpoint: Any,  # noqa: ARG002
    ) -> None:
        """Pass an epoch on and wait for the answer, while the workers are at the next one."""
        found = metrics[0]
        figure = figure_of(found)
        if figure is None:  # a checkpoint within an epoch
            return
        # A trial is worth its best epoch, which its model holds. Compared by that, one that is stopped
        # was behind another, so the best of all is never one that was stopped.
        self._best = max(self._best, figure)
        epoch = found["epoch"]
        self._board.say.remote(
            f"{self._trial}, epoch {epoch}/{self._epochs}: accuracy {figure:.4f}, best {self._best:.4f}"
        )
        if epoch == self._epochs:  # Tune ends a trial here; it hears of it when the model is written
            return
        self._reports.put({"val_accuracy": self._best, "epoch": epoch})
        if not self._answers.get():
            raise Behind(f"{self._trial} fell behind in epoch {epoch}")


class Behind(Exception):  # noqa: N818
    """Raised in the process that controls a training, to end it in good order."""
