"""Where progress is told, and how fast it is."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from rich.console import Console


class StepRate:
    """Steps per second, as they were of late: every second counts exponentially less with its age.

    What is averaged are seconds, not the intervals they come in: otherwise a burst of fast steps
    would count as much as the long update after it.

    Args:
        time_constant: seconds after which a second counts for 1/e of what it did.
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
