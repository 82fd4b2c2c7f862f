"""Progress of a study: one display for all its runs."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from agents.study.plan import StudyRun
from agents.study.results import last_figures
from rlcnn.runs.compact import score_text
from rlcnn.runs.progress import ProgressDisplay, StepRate, Task


class StudyDisplay:
    """A bar for the whole study and one for each current run, read from the runs' directories.

    Without a terminal, it prints a line every half minute.

    Args:
        study: the study's directory.
        runs: all runs to do now, by name.
        others: number of runs that are done or have failed.
        console: where to show it.
    """

    def __init__(
        self, study: Path, runs: dict[str, StudyRun], others: int, console: Console
    ) -> None:
        self._study, self._runs, self._console = study, runs, console
        self._display = ProgressDisplay(console)
        self._rate, self._counted = StepRate(), time.monotonic()
        self._ended = others
        self._all = others + len(runs)
        self._tasks: dict[str, Task] = {}
        self._whole = self._display.add("study: runs", self._all, others)
        self._steps = {name: last_figures(study / run.directory)[0] for name, run in runs.items()}

    def tick(self, running: Collection[str]) -> None:
        """Updates the display of running jobs; calls within a second of the last do nothing."""
        now = time.monotonic()
        if now - self._counted < 1:
            return
        taken = 0
        for name in running:
            run = self._runs[name]
            step, mean = last_figures(self._study / run.directory)
            # A resumed run begins again before its last logged step.
            taken += max(0, step - self._steps[name])
            self._steps[name] = max(step, self._steps[name])
            if name not in self._tasks:
                # A cluster gets all runs at once, also those that wait for a node.
                if not (self._study / run.directory).exists():
                    continue
                self._tasks[name] = self._display.add(name, run.config.total_steps)
            status = "" if mean is None else f"return {score_text(mean)}"
            self._tasks[name].reach(step)
            self._tasks[name].status = status
        self._rate.add(taken, now - self._counted)
        self._counted = now
        self._whole.status = f"{self._rate.value:,.0f} steps/s"

    def ended(self, name: str, outcome: str) -> None:
        """Removes a run from the display and prints its outcome."""
        self._ended += 1
        if name in self._tasks:
            self._display.remove(self._tasks.pop(name))
        self._whole.reach(self._ended)
        self._console.print(f"[{self._ended}/{self._all}] {name}: {outcome}")

    def close(self) -> None:
        """Removes the bars; a second call does nothing."""
        self._display.close()
