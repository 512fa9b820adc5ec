"""What can be told in a line, such as a mistake or a full disk, ends a training: each try would end in the same."""

from typing import Any, NoReturn

from ray.train import TrainingFailedError, UserCallback

from atlas_ray.errors import reason_of


class EndAtMistakes(UserCallback):
    """Keep Ray Train from trying again what a worker failed by in a way that can be told."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Raise the reason where Ray Train runs, which ends it; any other failure is for its own policy.

        Raises:
            UserError, RunError: what a worker raised.
        """
        for error in worker_exceptions.values():
            if reason := reason_of(error):
                raise reason


def raise_reason(error: TrainingFailedError) -> NoReturn:
    """Raise what ended a training.

    Raises:
        UserError, RunError: what can be told in a line.
        TrainingFailedError: anything else.
    """
    if reason := reason_of(error):
        raise reason from None
    raise error
