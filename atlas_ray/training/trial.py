"""The trials of a search: trainings whose epochs are reported to Ray Tune, which may end them."""

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
from atlas_ray.training.settings import FusionTraining, Training

END_TIMEOUT_S = 60.0
"""Seconds that a stopped training has to end its workers."""


def trial_folder(output: str, trial: int) -> str:
    """Return the folder of a trial's model."""
    return storage.join(output, "trials", str(trial))


def trial_record(output: str, trial: int) -> str:
    """Return the file of the epochs that a trial has reported to Ray Tune."""
    return storage.join(output, "trials", f"{trial}.json")


class Trial(ray.tune.Trainable):
    """A training in a thread; each step returns its next epoch.

    A trial of a search that was stopped first reports the same epochs again, so that Ray Tune's scheduler gets back
    to its state, and then trains on.

    Ray's own bridge (a trial that is a function, and `TuneReportCallback`) is not used for two reasons. It waits
    forever if a training ends while a report is on its way. And it kills what it stops, which leaves the CPUs and
    GPUs of the workers reserved if Ray runs without its dashboard.
    """

    def setup(  # type: ignore[override]  # with_parameters adds them
        self,
        config: Mapping[str, int],
        training: Training,
        drawn: Sequence[Mapping[str, Any]],
        progress: Any,
    ) -> None:
        """Prepare to train.

        Args:
            config: `trial`, the trial's number, from 1.
            training: The settings that are not searched, with the output of the search.
            drawn: The searched settings of every trial.
            progress: The `ProgressActor` of the search.
        """
        number = config["trial"]
        chosen: Mapping[str, Any] = drawn[number - 1]
        folder = trial_folder(training.output, number)
        self._training = replace(training, output=folder, checkpoint_minutes=0.0, **chosen)
        self._record = trial_record(training.output, number)
        self._reported: list[dict[str, Any]] = []
        if storage.exists(self._record):
            self._reported = json.loads(storage.read_bytes(self._record))
        self._to_repeat = list(self._reported)
        self._progress, self._name = progress, f"trial {number}/{len(drawn)}"
        shown = (
            f"{name} {value if isinstance(value, str) else format(value, '.3g')}" for name, value in chosen.items()
        )
        self._start = f"{self._name}: {', '.join(shown)}"
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._waits = False

    def step(self) -> dict[str, Any]:
        """Let the training go on, and return its next epoch."""
        if self._to_repeat:
            return self._to_repeat.pop(0)
        if self._thread is None:
            self._progress.say.remote(self._start)
            self._reports, self._answers = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
            self._thread = threading.Thread(target=self._train, daemon=True)
            self._thread.start()
        self._answer(go_on=True)
        report: dict[str, Any] | None = self._reports.get()
        if report is None:
            assert self._error is not None
            raise self._error
        self._reported.append(report)
        storage.write_bytes(self._record, json.dumps(self._reported).encode())
        self._waits = "done" not in report
        return report

    def cleanup(self) -> None:
        """End the training if it still runs."""
        self._answer(go_on=False)
        if self._thread is not None:
            self._thread.join(timeout=END_TIMEOUT_S)

    def _answer(self, *, go_on: bool) -> None:
        if self._waits:
            self._waits = False
            self._answers.put(go_on)

    def _train(self) -> None:
        last = None
        best = max((report["val_accuracy"] for report in self._reported), default=0.0)
        watcher = Watcher(self._name, self._training.epochs, best, self._reports, self._answers, self._progress)
        try:
            if isinstance(self._training, FusionTraining):
                # It runs the models itself, which takes more than the trial's own share of the cluster.
                no_group: Any = None
                free = PlacementGroupSchedulingStrategy(placement_group=no_group)
                task: Any = ray.remote(num_cpus=0, scheduling_strategy=free)(train_fusion)
                metrics = ray.get(task.remote(self._training, callbacks=[watcher])).metrics
            else:
                metrics = train(self._training, callbacks=[watcher]).metrics
            last = {"val_accuracy": figure_of(metrics), "epoch": len(metrics["history"])}
            last |= {"finished": True, "done": True}
        except Exception as error:
            self._error = error
        self._reports.put(last)


def figure_of(metrics: Mapping[str, Any]) -> float | None:
    """Return the figure that trials are compared by: the accuracy, or for a model of labels the micro-F1."""
    figure: float | None = metrics.get("val_accuracy", metrics.get("val_micro_f1"))
    return figure


class Watcher(ray.train.UserCallback):
    """A callback in the process that controls a training, which reports its epochs to the trial."""

    def __init__(self, trial: str, epochs: int, best: float, reports: Queue, answers: Queue, progress: Any) -> None:
        self._trial, self._epochs, self._reports, self._answers, self._progress = (
            trial,
            epochs,
            reports,
            answers,
            progress,
        )
        self._best = best

    def after_report(
        self,
        run_context: Any,  # noqa: ARG002
        metrics: Sequence[Mapping[str, Any]],
        checkpoint: Any,  # noqa: ARG002
    ) -> None:
        """Report an epoch and wait for the answer, while the workers train the next one."""
        figure = figure_of(metrics[0])
        if figure is None:  # a checkpoint within an epoch
            return
        # Trials are compared by their best epoch, which is the one that their model holds. So a trial that is stopped
        # was behind another, and the best trial of all is never one that was stopped.
        self._best = max(self._best, figure)
        epoch = metrics[0]["epoch"]
        name = "accuracy" if "val_accuracy" in metrics[0] else "micro-F1"
        self._progress.say.remote(
            f"{self._trial}, epoch {epoch}/{self._epochs}: {name} {figure:.4f}, best {self._best:.4f}"
        )
        if epoch == self._epochs:  # Tune would end the trial here; it is reported when the model is written
            return
        self._reports.put({"val_accuracy": self._best, "epoch": epoch})
        if not self._answers.get():
            raise TrialStopped(f"{self._trial} fell behind in epoch {epoch}")


class TrialStopped(Exception):  # noqa: N818
    """The exception that ends a training in the process that controls it."""
