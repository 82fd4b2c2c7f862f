"""Progress on the console: live bars or regular lines, aligned facts, and a lasting stream."""

from __future__ import annotations

import itertools
import math
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Self

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlcnn.runs.compact import count_text, duration_text, rate_text, wrap

COUNT_SECONDS = 1.0
REFRESHES_PER_SECOND = 2.0
LINE_SECONDS = 30.0
LABEL_WIDTH, TITLE_WIDTH = 13, 17


class StepRate:
    """Recent steps per second: the weight of each second falls exponentially with its age.

    The average is over seconds, not over calls: otherwise a burst of fast steps would count as
    much as the long update after it. A second's weight falls to 1/e in ``time_constant`` seconds.
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


# -- displays --------------------------------------------------------------------------------------


@dataclass
class Task:
    """A task on a display. Other threads may show it while it changes.

    Attributes:
        label: what goes on.
        total: how much there is to do; None where that is unknown.
        done: how much of it is done; :meth:`reach` changes it.
        status: more about it, such as ``return -20.3``; two spaces part what may go to a new row.
    """

    label: str
    total: int | None = None
    done: int = 0
    status: str = ""
    phase: str = ""
    _phase_began: float = 0.0
    _rate: StepRate = field(default_factory=StepRate)
    _counted_done: int = 0

    def __post_init__(self) -> None:
        self._counted_done = self.done
        self._began = self._counted = time.monotonic()

    def reach(self, done: int) -> bool:
        """Sets what is done; whether a second has passed since the rate was last measured."""
        self.done = done
        now = time.monotonic()
        if now - self._counted < COUNT_SECONDS:
            return False
        self._rate.add(done - self._counted_done, now - self._counted)
        self._counted, self._counted_done = now, done
        return True

    def begin_phase(self, name: str) -> None:
        """Names the part that begins now, unless it goes on; empty for none.

        It takes the label's place once it has lasted a second: shorter ones would only flicker.
        """
        if name != self.phase:
            self.phase, self._phase_began = name, time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Adds to what is done."""
        self.reach(self.done + count)

    @contextmanager
    def activity(self, name: str, total: int = 0) -> Iterator[Callable[..., None]]:
        """Names what goes on inside the block, whose seconds the rate leaves out.

        Yields a function to call, with any arguments, after each of ``total`` parts, if there are.
        """
        before, began, parts = (self.label, self.phase), time.monotonic(), itertools.count(1)

        def count(*_: object) -> None:
            self.label = f"{name} {next(parts)}/{total}"

        self.label, self.phase = f"{name} 0/{total}" if total else name, ""
        try:
            yield count
        finally:
            self.label, self.phase = before
            self._counted += time.monotonic() - began

    def title(self) -> str:
        """The phase if it has lasted a second, else the label."""
        lasted = time.monotonic() - self._phase_began
        return self.phase if self.phase and lasted >= 1 else self.label

    def parts(self) -> list[str]:
        """The numbers, each with its label."""
        seconds = time.monotonic() - self._began
        elapsed = f"{duration_text(seconds)} elapsed"
        if self.total is None:
            return [elapsed]
        # Until the first second has passed, there is only the mean.
        rate = self._rate.value or (self.done - self._counted_done) / max(seconds, 1e-3)
        left = self.total - self.done
        seconds = left / rate if rate else math.inf
        return [
            count_text(self.done, self.total),
            rate_text(rate),
            elapsed,
            f"{duration_text(seconds if left > 0 else 0)} left",
            *filter(None, self.status.split("  ")),
        ]

    def line(self) -> str:
        """All of it as one line."""
        return "  ".join([self.title(), *self.parts()])

    def rows(self, width: int) -> RenderableType:
        """A row with a bar, and the numbers in as many rows as they need."""
        title, parts = self.title(), self.parts()
        if self.total is None:
            return Text("\n".join(wrap([title, *parts], width)), overflow="fold")
        numbers = Text("\n".join(wrap(parts, width)), overflow="fold")
        share = f"{self.done / self.total if self.total else 1:5.0%}"
        # At a fixed place for short titles: the bar must not jump when they change.
        start = max(TITLE_WIDTH, cell_len(title) + 1)
        if start + len(share) + 10 > width:
            return Group(Text(f"{title} {share}", overflow="fold"), numbers)
        bar = Table.grid()
        bar.add_column(width=start)
        room = width - start - len(share)
        bar.add_row(Text(title), ProgressBar(self.total, self.done, width=room), share)
        return Group(bar, numbers)


class ProgressDisplay:
    """Shows tasks and their clocks, whatever the caller's thread is busy with.

    On a terminal two rows each, drawn anew twice a second, of which nothing stays in the end if
    ``transient``; elsewhere all as one line every ``line_seconds``. Use it as a context manager, or
    close it.
    """

    def __init__(
        self, console: Console, line_seconds: float = LINE_SECONDS, *, transient: bool = False
    ) -> None:
        self._console, self._line_seconds = console, line_seconds
        self._tasks: list[Task] = []
        self._closed = threading.Event()
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=console,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=transient,
            )
            self._live.start()
        else:
            threading.Thread(target=self._print_lines, daemon=True).start()

    def add(self, label: str, total: int | None = None, done: int = 0, status: str = "") -> Task:
        """Adds a task below the others; change it through what is returned."""
        task = Task(label, total, done, status)
        self._tasks = [*self._tasks, task]
        if self._live:
            self._live.refresh()
        return task

    def remove(self, task: Task) -> None:
        """Removes a task."""
        self._tasks = [other for other in self._tasks if other is not task]

    def line(self) -> str:
        """All tasks as one line."""
        return "; ".join(task.line() for task in self._tasks)

    def close(self) -> None:
        """Stops the display; calling it again does nothing."""
        self._closed.set()
        if self._live:
            self._live.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _render(self) -> RenderableType:
        return Group(*(task.rows(self._console.width) for task in self._tasks))

    def _print_lines(self) -> None:
        while not self._closed.wait(self._line_seconds):
            print_line(self._console, self.line())


@contextmanager
def waiting(console: Console, label: str) -> Iterator[None]:
    """Shows that something of unknown length goes on inside the block."""
    with ProgressDisplay(console, transient=True) as display:
        display.add(label)
        yield


# -- lines -----------------------------------------------------------------------------------------


def print_line(console: Console, line: str) -> None:
    """Prints a line as it is, without markup or wrapping."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_facts(
    console: Console, facts: Sequence[tuple[str, str]], *, wrapped: bool = False
) -> None:
    """Prints labels and their texts, which are aligned.

    If ``wrapped``, a terminal gets long texts in several lines, broken between words.
    """
    start = max([LABEL_WIDTH, *(len(label) + 2 for label, _ in facts)])
    for label, text in facts:
        lines = text.splitlines()
        if wrapped and console.is_terminal:
            wrapper = textwrap.TextWrapper(
                max(20, console.width - start), break_long_words=False, break_on_hyphens=False
            )
            lines = [short for line in lines for short in wrapper.wrap(line)]
        for number, line in enumerate(lines):
            print_line(console, f"{'' if number else label + ':':{start}}{line}")


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
