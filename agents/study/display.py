"""Progress of a study: one display for all its runs."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from agents.study.plan import StudyRun
from agents.study.results import last_figures
from agents.train.callbacks import StepRate

_UPDATE_SECONDS = 1.0
_LINE_SECONDS = 60.0


class StudyDisplay:
    """A bar for the whole study and one for each current run, read from the runs' directories.

    Without a terminal, it prints a line at most every minute.

    Args:
        study: the study's directory.
        runs: all runs to do now, by name.
        others: number of runs that are done or have failed.
        console: where to show it.
    """

    def __init__(
        self,
        study: Path,
        runs: dict[str, StudyRun],
        others: int,
        console: Console,
    ) -> None:
        self._study, self._runs, self._console = study, runs, console
        self._bar = Progress(
            # No markup: names of files may hold brackets and colons.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._ended = others
        self._all = others + len(runs)
        self._tasks: dict[str, TaskID] = {}
        self._whole = self._bar.add_task(
            "study, runs", total=self._all, completed=others, figures=""
        )
        self._steps = {name: last_figures(study / run.directory)[0] for name, run in runs.items()}
        self._rate = StepRate()
        self._updated = self._shown = time.monotonic()
        self._bar.start()

    def tick(self, running: Collection[str]) -> None:
        """Updates the display of running jobs; calls within a second of the last do nothing."""
        now = time.monotonic()
        if now - self._updated < _UPDATE_SECONDS:
            return
        taken = 0
        for name in running:
            run = self._runs[name]
            step, mean = last_figures(self._study / run.directory)
            # A resumed run begins again before its last logged step.
            taken += max(0, step - self._steps[name])
            self._steps[name] = max(step, self._steps[name])
            figures = "" if mean is None else f"return {mean:.1f}"
            if name not in self._tasks:
                # A cluster gets all runs at once, also those that wait for a node.
                if not (self._study / run.directory).exists():
                    continue
                self._tasks[name] = self._bar.add_task(
                    name, total=run.config.total_steps, figures=""
                )
            self._bar.update(self._tasks[name], completed=step, figures=figures)
        self._rate.add(taken, now - self._updated)
        self._updated = now
        self._bar.update(self._whole, figures=f"{self._rate.value:,.0f} steps/s")
        if not self._console.is_terminal and now - self._shown >= _LINE_SECONDS:
            self._shown = now
            current = "; ".join(
                f"{name}: {self._steps[name]:,}/{self._runs[name].config.total_steps:,}"
                for name in running
                if self._steps[name]
            )
            self._console.print(
                f"{self._ended}/{self._all} runs ended, {self._rate.value:,.0f} steps/s; {current}"
            )

    def ended(self, name: str, outcome: str) -> None:
        """Removes a run from the display and prints its outcome."""
        self._ended += 1
        if name in self._tasks:
            self._bar.remove_task(self._tasks.pop(name))
        self._bar.update(self._whole, completed=self._ended)
        self._console.print(f"[{self._ended}/{self._all}] {name}: {outcome}")

    def close(self) -> None:
        """Removes the bars; a second call does nothing."""
        self._bar.stop()
