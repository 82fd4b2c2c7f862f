"""Progress on the console: rates, bars, lines, and a stream that outlasts its reader."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

REFRESH_SECONDS = 1.0


class StepRate:
    """Recent steps per second: the weight of each second falls exponentially with its age.

    The average is over seconds, not over calls: otherwise a burst of fast steps would count as
    much as the long update after it.

    Args:
        time_constant: seconds after which the weight of a second has fallen to 1/e.
    """

    def __init__(self, time_constant: float = 30.0) -> None:
        self._time_constant = time_constant
        self._steps = self._seconds = 0.0

    def add(self, steps: int, seconds: float) -> None:
        """Counts ``steps`` taken, evenly, in the ``seconds`` just past."""
        kept = math.exp(-seconds / self._time_constant)
        self._steps = kept * self._steps + (1 - kept) * steps / seconds
        self._seconds = kept * self._seconds + (1 - kept)

    @property
    def value(self) -> float:
        """Steps per second; 0 before anything was counted."""
        return self._steps / self._seconds if self._seconds else 0.0


class ProgressDisplay:
    """Live bars on a terminal, one for each task; elsewhere a line now and then.

    Close the display, or use it as a context manager, to take the bars off the screen.

    Args:
        console: shows the bars or lines.
        line_seconds: seconds between two lines where there is no terminal.

    Attributes:
        rate: of the steps given to :meth:`count`.
    """

    def __init__(self, console: Console, line_seconds: float = math.inf) -> None:
        self._console = console
        self._line_seconds = line_seconds
        self.rate = StepRate()
        self._counted = self._printed = time.monotonic()
        self._bars = Progress(
            # No markup: names of files may hold brackets and colons.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._bars.start()
        self.remove = self._bars.remove_task
        # Takes ``completed`` or ``advance``, ``description`` and ``status``.
        self.update = self._bars.update

    def add(self, description: str, total: int, completed: int = 0, status: str = "") -> TaskID:
        """Adds a task below the others."""
        return self._bars.add_task(description, total=total, completed=completed, status=status)

    @property
    def stale(self) -> bool:
        """Whether the last :meth:`count` was a second ago: tasks should be updated now."""
        return time.monotonic() - self._counted >= REFRESH_SECONDS

    def count(self, steps: int) -> None:
        """Counts the steps taken since the last call."""
        now = time.monotonic()
        self.rate.add(steps, now - self._counted)
        self._counted = now

    @property
    def line_due(self) -> bool:
        """Whether the last :meth:`print` was ``line_seconds`` ago."""
        return time.monotonic() - self._printed >= self._line_seconds

    def print(self, line: str) -> None:
        """Prints a line where there is no terminal."""
        self._printed = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(line)

    def close(self) -> None:
        """Takes the bars off the screen; calling it again does nothing."""
        self._bars.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TrainingDisplay(ProgressDisplay):
    """One bar for a training: its count, rate, note, and the time left.

    Args:
        console: as for :class:`ProgressDisplay`, as is ``line_seconds``.
        unit: what is counted, such as "steps".
        total: the whole training.
        done: what earlier attempts did.
    """

    def __init__(
        self, console: Console, unit: str, total: int, done: int, line_seconds: float
    ) -> None:
        super().__init__(console, line_seconds)
        self._unit, self._total, self._start, self._done = unit, total, done, done
        self._began = time.monotonic()
        self._task = self.add("training", total, done)

    def reach(self, done: int, note: Callable[[], str]) -> None:
        """Counts what is ``done`` of the total; shows it once a second."""
        if self.stale:
            self.count(done - self._done)
            self._done = done
            self.redraw(done, note())
            if self.line_due:
                self.print(self._line(done, note()))

    def redraw(self, done: int, note: str) -> None:
        """Shows what is ``done`` of the total now."""
        status = f"{self.rate.value:,.0f} {self._unit}/s, {note}"
        self.update(self._task, completed=done, status=status)

    def _line(self, done: int, note: str) -> str:
        rate = (done - self._start) / (time.monotonic() - self._began)
        left = (self._total - done) / rate if rate else math.inf
        return (
            f"{done:,}/{self._total:,} {self._unit}, {rate:,.0f} {self._unit}/s,"
            f" {left / 60:.1f} min left, {note}"
        )


class LastingStream:
    """A text stream that drops what it can no longer write, so that the program goes on.

    The reader of a pipe may leave (`head`), a terminal may close, a disk may be full.

    Attributes:
        error: what the first write that failed raised; None while all is well.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        # Python has none where the shell closed it (>&-).
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Writes ``text``, or drops it."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or drops it."""
        with self._dropping():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            # What is still buffered, and what comes later, goes to nowhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def make_console() -> Console:
    """Where progress is shown: standard error, so that output stays clean.

    A run goes on in silence when nobody can read its progress any more.
    """
    file: Any = LastingStream(sys.stderr)
    # No markup and no emoji: messages name files, which may hold brackets and colons.
    return Console(file=file, highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_line(console: Console, line: str) -> None:
    """Prints a line as it is, without markup or wrapping."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
