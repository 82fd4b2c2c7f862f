"""The progress of a training on labelled images: a live bar, or lines."""

from __future__ import annotations

from rich.console import Console

from rlcnn.runs.progress import ProgressDisplay


class EpochDisplay:
    """Shows epochs, images per second, time left, and the last metrics.

    Where the output is no terminal, a line is printed for each epoch, and one every
    ``line_seconds`` in between.

    Args:
        epochs: of the whole run.
        images: in an epoch.
        done: images that earlier attempts learned from, over all epochs.
        console: shows the progress.
        line_seconds: seconds between two lines where there is no terminal.
    """

    def __init__(
        self, epochs: int, images: int, done: int, console: Console, line_seconds: float = 60.0
    ) -> None:
        self._epochs, self._images = epochs, images
        self._done = self._counted = done
        self._metrics = ""
        self._display = ProgressDisplay(console, line_seconds)
        self._task = self._display.add(f"epoch {self._epoch()}", epochs * images, done)

    def advance(self, images: int) -> None:
        """Counts images just learned from."""
        self._done += images
        if self._display.stale:
            self._display.count(self._done - self._counted)
            self._counted = self._done
            self._update()
            self._display.line(lambda: f"epoch {self._epoch()}, {self._rate()}")

    def epoch_done(self, epoch: int, metrics: str) -> None:
        """Shows how an epoch ended; ``metrics`` stay beside the bar."""
        self._metrics = metrics
        self._update()
        self._display.line_now(f"epoch {epoch}/{self._epochs}: {metrics}")

    def close(self) -> None:
        """Takes the bar off the screen; calling it again does nothing."""
        self._display.close()

    def _epoch(self) -> str:
        """The current epoch, counted from 1."""
        return f"{min(self._epochs, self._done // self._images + 1)}/{self._epochs}"

    def _rate(self) -> str:
        return f"{self._display.rate.value:,.0f} images/s"

    def _update(self) -> None:
        status = ", ".join(filter(None, (self._rate(), self._metrics)))
        self._display.update(
            self._task, completed=self._done, description=f"epoch {self._epoch()}", status=status
        )
