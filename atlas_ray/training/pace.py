"""The moments at which all workers of a training save, told by the clock or by a machine that is about to leave."""

import time
from collections.abc import Callable

NOTICE_S = 15
"""The time between two questions whether a machine is about to leave; the shortest notice of a cloud is 30 s."""


class Pace:
    """Tells all workers at the same step that it is time to save.

    Their clocks differ, so that they have to agree, and that makes a GPU wait. They do so at a few steps alone: the
    first after the start or a checkpoint, then after twice as many steps each time, and no later than when the time
    or `NOTICE_S` will be over at the pace so far. When a machine is about to leave, they save once more.
    """

    def __init__(
        self,
        seconds: float,
        agree: Callable[[float], float],
        *,
        leaves: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin at step 0.

        Args:
            seconds: The time between checkpoints; 0: never.
            agree: Turns the workers' numbers into one that is the same for all.
            leaves: Tells all workers alike whether the machine of one of them is about to leave.
            clock: Returns seconds.
        """
        self._seconds, self._agree, self._leaves, self._clock = seconds, agree, leaves, clock
        self._noticed = False
        self._since, self._steps, self._ask_at = clock(), 0, 1

    def is_due(self) -> bool:
        """Count a step, and tell whether to save now; then the time begins anew."""
        self._steps += 1
        if not self._seconds or self._steps < self._ask_at:
            return False
        elapsed = self._agree(self._clock() - self._since)
        noticed, self._noticed = self._noticed, self._leaves()
        if elapsed >= self._seconds or (self._noticed and not noticed):
            self.restart()
            return True
        left = self._steps * min(self._seconds - elapsed, NOTICE_S) / max(elapsed, 1e-9)  # steps, at the pace so far
        self._ask_at = self._steps + max(1, int(min(left, self._steps)))
        return False

    def restart(self) -> None:
        """Begin anew, after a checkpoint."""
        self._since, self._steps, self._ask_at = self._clock(), 0, 1
