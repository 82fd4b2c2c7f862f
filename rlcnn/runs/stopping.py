"""A request to stop, such as Ctrl-C, which training follows where nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingStopped(Exception):  # noqa: N818
    """Training stopped between two updates, because it was asked to."""


class StopRequest:
    """A request to stop training between two updates, such as Ctrl-C.

    Use its :meth:`handle` as a signal handler: the first signal is a line to ``report``, and a
    second raises ``KeyboardInterrupt`` at once, except SIGHUP, which a closing terminal sends more
    than once. Long actions call :meth:`check`.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.requested = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Requests the stop."""
        if self.requested:
            if signum == signal.SIGHUP:
                return
            raise KeyboardInterrupt
        self.requested = True
        self._report(
            "stopping with a checkpoint when the update under way is done;"
            " Ctrl-C again stops at once, without one"
        )

    def check(self) -> None:
        """Raises TrainingStopped if the stop was requested."""
        if self.requested:
            raise TrainingStopped


@contextmanager
def handle_signals(handler: Callable[..., None]) -> Iterator[None]:
    """Lets ``handler`` handle SIGINT, SIGTERM and SIGHUP inside the block."""
    caught = [signal.SIGINT, signal.SIGTERM]
    # ``nohup`` ignores SIGHUP, so that the program outlives its terminal.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        caught.append(signal.SIGHUP)
    try:
        before = {number: signal.signal(number, handler) for number in caught}
    except ValueError:
        # Only the main thread receives signals; other threads are stopped by their starter.
        yield
        return
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
