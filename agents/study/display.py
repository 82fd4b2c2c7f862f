"""How a study is getting on: one display for all its runs."""

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

_LOOK_EVERY_S = 1.0


class StudyDisplay:
    """A bar for the whole study and one for each run at work, read off the runs' directories.

    Where the output is no terminal, a line is printed at most every ``line_seconds``.

    Args:
        study: the study's directory.
        runs: all runs that are to be done now, by their names.
        others: runs that need not be done: they are done, or have failed.
        console: where to show it.
        line_seconds: seconds between two lines where there is no terminal.
    """

    def __init__(
        self,
        study: Path,
        runs: dict[str, StudyRun],
        others: int,
        console: Console,
        line_seconds: float = 60.0,
    ) -> None:
        self._study, self._runs, self._console = study, runs, console
        self._line_seconds = line_seconds
        self._bar = Progress(
            # No markup: names of files may hold brackets and colons.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._ended = others
        self._all = others + len(runs)
        self._tasks: dict[str, TaskID] = {}
        self._whole = self._bar.add_task("study, runs", total=self._all, completed=others, told="")
        self._steps = {name: last_figures(study / run.directory)[0] for name, run in runs.items()}
        self._rate = StepRate()
        self._looked = self._shown = time.monotonic()
        self._bar.start()

    def tick(self, running: Collection[str]) -> None:
        """Shows how runs at work, or waiting for a place, stand; called as often as one likes."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        taken = 0
        for name in running:
            run = self._runs[name]
            step, mean = last_figures(self._study / run.directory)
            # A run that was resumed begins again behind what it had logged.
            taken += max(0, step - self._steps[name])
            self._steps[name] = max(step, self._steps[name])
            told = "" if mean is None else f"return {mean:.1f}"
            if name not in self._tasks:
                # A cluster is given all runs at once, whether it has room for them or not.
                if not (self._study / run.directory).exists():
                    continue
                self._tasks[name] = self._bar.add_task(name, total=run.config.total_steps, told="")
            self._bar.update(self._tasks[name], completed=step, told=told)
        self._rate.add(taken, now - self._looked)
        self._looked = now
        self._bar.update(self._whole, told=f"{self._rate.value:,.0f} steps/s")
        if not self._console.is_terminal and now - self._shown >= self._line_seconds:
            self._shown = now
            at_work = "; ".join(
                f"{name}: {self._steps[name]:,}/{self._runs[name].config.total_steps:,}"
                for name in running
                if self._steps[name]
            )
            self._console.print(
                f"{self._ended}/{self._all} runs ended, {self._rate.value:,.0f} steps/s; {at_work}"
            )

    def ended(self, name: str, told: str) -> None:
        """Takes a run off the display and prints how it ended."""
        self._ended += 1
        if name in self._tasks:
            self._bar.remove_task(self._tasks.pop(name))
        self._bar.update(self._whole, completed=self._ended)
        self._console.print(f"[{self._ended}/{self._all}] {name}: {told}")

    def close(self) -> None:
        """Takes the bars off the screen; calling it again does nothing."""
        self._bar.stop()
