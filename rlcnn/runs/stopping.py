"""Being asked to stop, as by Ctrl-C, and doing so where nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingStopped(Exception):  # noqa: N818
    """Training was asked to stop, and did so between two updates."""


class StopRequest:
    """Stops training between two updates once it was asked to, as by Ctrl-C.

    Use its :meth:`handle` as a signal handler. A second signal is not waited for: it raises
    ``KeyboardInterrupt`` at once. What takes long asks by :meth:`check`.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        """``tell``: what to say, and how, when it is asked for."""
        self._tell = tell
        self.requested = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Ask for the stop."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._tell(
            "stopping with a checkpoint when the update under way is done;"
            " Ctrl-C again stops at once, without one"
        )

    def check(self) -> None:
        """Raises TrainingStopped where the stop was asked for."""
        if self.requested:
            raise TrainingStopped


@contextmanager
def answering_signals(handler: Callable[..., None]) -> Iterator[None]:
    """Lets ``handler`` answer Ctrl-C and a polite kill inside the block."""
    caught = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, handler) for number in caught}
    except ValueError:
        # Signals belong to the main thread; elsewhere, whoever started the thread stops it.
        yield
        return
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
