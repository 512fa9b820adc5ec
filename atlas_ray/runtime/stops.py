"""Stop signals: SIGTERM and SIGHUP end a command as Ctrl-C does, by KeyboardInterrupt, so that it can clean up."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """A signal handler that remembers whether it was called, because a library may replace the KeyboardInterrupt."""

    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.asked = True
        signal.default_int_handler(number, frame)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Let each of `STOPS` raise KeyboardInterrupt in the block; signals that are ignored (nohup) stay ignored."""
    before, stop = _handlers(), Stop()
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """Restore the handlers of `STOPS` after the block, which calls a library that replaces them."""
    before = _handlers()
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


def _handlers() -> dict[signal.Signals, Any]:
    """Return the handlers that Python can restore; in other threads than the main one there are none."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: handler for number in STOPS if (handler := signal.getsignal(number)) is not None}
