"""Stops: SIGTERM and SIGHUP end a command as Ctrl-C does, by KeyboardInterrupt, so that all is put in order."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether a block was asked to stop: a library may make another error of the KeyboardInterrupt."""

    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.asked = True
        signal.default_int_handler(number, frame)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Let each of `STOPS` raise KeyboardInterrupt in the block; one that the process ignores (nohup) stays ignored."""
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
    """Put the handlers of `STOPS` back after the block, which calls what sets its own where there was none."""
    before = _handlers()
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


def _handlers() -> dict[signal.Signals, Any]:
    """Return the handlers that Python can set again; those of a process belong to its main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: handler for number in STOPS if (handler := signal.getsignal(number)) is not None}
