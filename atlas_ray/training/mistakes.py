"""Failures that end a training at once, such as a mistake or a full disk, because each try would fail alike."""

from typing import Any, NoReturn

from ray.train import TrainingFailedError, UserCallback

from atlas_ray.errors import reason_of


class EndAtMistakes(UserCallback):
    """A callback that keeps Ray Train from retrying after a failure with a reason that fits a line."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Raise such a reason in Ray Train's process, which ends it; other failures are left to its retries.

        Raises:
            UserError, RunError: the error of a worker.
        """
        for error in worker_exceptions.values():
            if reason := reason_of(error):
                raise reason


def raise_reason(error: TrainingFailedError) -> NoReturn:
    """Raise the error that ended a training.

    Raises:
        UserError, RunError: if it has a reason that fits a line.
        TrainingFailedError: otherwise.
    """
    if reason := reason_of(error):
        raise reason from None
    raise error
