"""How a study is getting on: one display for all its runs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.progress import TaskID

from agents.study.plan import StudyRun
from agents.study.results import last_figures
from rlcnn.runs.progress import ProgressDisplay


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
        self._display = ProgressDisplay(console, line_seconds)
        self._ended = others
        self._all = others + len(runs)
        self._tasks: dict[str, TaskID] = {}
        self._whole = self._display.add("study, runs", self._all, others)
        self._steps = {name: last_figures(study / run.directory)[0] for name, run in runs.items()}

    def tick(self, running: Collection[str]) -> None:
        """Shows how runs at work, or waiting for a place, stand; called as often as one likes."""
        if not self._display.stale:
            return
        taken = 0
        for name in running:
            run = self._runs[name]
            step, mean = last_figures(self._study / run.directory)
            # A run that was resumed begins again behind what it had logged.
            taken += max(0, step - self._steps[name])
            self._steps[name] = max(step, self._steps[name])
            if name not in self._tasks:
                # A cluster is given all runs at once, whether it has room for them or not.
                if not (self._study / run.directory).exists():
                    continue
                self._tasks[name] = self._display.add(name, run.config.total_steps)
            status = "" if mean is None else f"return {mean:.1f}"
            self._display.update(self._tasks[name], completed=step, status=status)
        self._display.count(taken)
        rate = f"{self._display.rate.value:,.0f} steps/s"
        self._display.update(self._whole, status=rate)
        if self._display.line_due:
            at_work = "; ".join(
                f"{name}: {self._steps[name]:,}/{self._runs[name].config.total_steps:,}"
                for name in running
                if self._steps[name]
            )
            self._display.print(f"{self._ended}/{self._all} runs ended, {rate}; {at_work}")

    def ended(self, name: str, outcome: str) -> None:
        """Takes a run off the display and prints how it ended."""
        self._ended += 1
        if name in self._tasks:
            self._display.remove(self._tasks.pop(name))
        self._display.update(self._whole, completed=self._ended)
        self._console.print(f"[{self._ended}/{self._all}] {name}: {outcome}")

    def close(self) -> None:
        """Takes the bars off the screen; calling it again does nothing."""
        self._display.close()
