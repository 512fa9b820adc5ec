"""What ends a training since it would be the same at every try: a mistake of the user's, numbers that are none."""

from typing import Any, NoReturn

from ray.train import ControllerError, TrainingFailedError, UserCallback

from atlas_ray.errors import RunError, UserError

ENDS = (UserError, RunError)


class EndAtMistakes(UserCallback):
    """Keep Ray Train from trying again what a worker raised one of `ENDS` for."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Raise the mistake where Ray Train runs, which ends it; any other failure is for its own policy.

        Raises:
            UserError, RunError: what a worker raised.
        """
        for error in worker_exceptions.values():
            mistake = getattr(error, "_base_exc", error)  # Ray wraps it together with the traceback
            if isinstance(mistake, ENDS):
                raise mistake


def raise_reason(error: TrainingFailedError) -> NoReturn:
    """Raise the mistake that ended a training, or else its failure.

    Raises:
        UserError, RunError: what a worker raised.
        TrainingFailedError: anything else.
    """
    if isinstance(error, ControllerError) and isinstance(error.controller_failure, ENDS):
        raise error.controller_failure from None
    raise error
