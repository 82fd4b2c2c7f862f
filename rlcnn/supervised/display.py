"""A training on labelled images as it is watched: a live bar, or lines."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rlcnn.runs.progress import StepRate


class EpochDisplay:
    """Epochs, images per second, time left, and the last figures.

    Where the output is no terminal, a line is printed for each epoch, and one every
    ``line_seconds`` in between.

    Args:
        epochs: of the whole run.
        images: in an epoch.
        done: images that were learned from before, over all epochs.
        console: where to show it.
        line_seconds: seconds between two lines where there is no terminal.
    """

    def __init__(
        self, epochs: int, images: int, done: int, console: Console, line_seconds: float = 60.0
    ) -> None:
        self._epochs, self._images, self._done = epochs, images, done
        self._console = console
        self._line_seconds = line_seconds
        self._figures = ""
        self._rate = StepRate()
        self._shown = self._marked = time.monotonic()
        self._marked_images = done
        self._bar = Progress(
            TextColumn("[bold]epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.fields[rate]} images/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            "", total=epochs * images, completed=done, epoch=self._epoch(), rate="-", figures=""
        )
        self._bar.start()

    def advance(self, images: int) -> None:
        """Counts images just learned from."""
        self._done += images
        now = time.monotonic()
        if now - self._marked < 1.0:
            return
        self._rate.add(self._done - self._marked_images, now - self._marked)
        self._marked, self._marked_images = now, self._done
        self._update()
        if not self._console.is_terminal and now - self._shown >= self._line_seconds:
            self._shown = now
            self._console.print(f"epoch {self._epoch()}, {self._rate.value:,.0f} images/s")

    def epoch_done(self, epoch: int, figures: str) -> None:
        """Tells how an epoch ended; ``figures`` stay beside the bar."""
        self._figures = figures
        self._shown = time.monotonic()
        self._update()
        if not self._console.is_terminal:
            self._console.print(f"epoch {epoch}/{self._epochs}: {figures}")

    def close(self) -> None:
        """Takes the bar off the screen; calling it again does nothing."""
        self._bar.stop()

    def _epoch(self) -> str:
        """The epoch under way, counted from 1."""
        return f"{min(self._epochs, self._done // self._images + 1)}/{self._epochs}"

    def _update(self) -> None:
        self._bar.update(
            self._task,
            completed=self._done,
            epoch=self._epoch(),
            rate=f"{self._rate.value:,.0f}",
            figures=self._figures,
        )
