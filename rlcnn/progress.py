"""Where progress is told, and how fast it is."""

from __future__ import annotations

import math
import os
import sys
from typing import IO

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


class _LastingConsole(Console):
    def on_broken_pipe(self) -> None:
        """Go on where the reader, such as `head`, has left; rich would end the program here."""
        discard_output(self.file)


def make_console() -> Console:
    """Where progress is shown: standard error, so that output stays clean.

    A run goes on in silence when nobody reads its progress any more.
    """
    # No markup and no emoji: messages name files, which may hold brackets and colons.
    return _LastingConsole(
        file=sys.stderr, highlight=False, soft_wrap=True, markup=False, emoji=False
    )


def discard_output(stream: IO[str]) -> None:
    """Lets a stream whose reader has left write to nowhere, at exit too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
