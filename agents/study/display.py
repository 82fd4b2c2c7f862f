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

    Attributes:
        note: more about the whole, behind its speed.

    Args:
        study: the study's directory.
        runs: the runs to do now, by name; more may be added later.
        others: number of runs that are done or have failed.
        console: where to show it.
        label: of the bar for the whole.
        total: number of all runs; by default those above.
    """

    def __init__(
        self,
        study: Path,
        runs: dict[str, StudyRun],
        others: int,
        console: Console,
        label: str = "study: runs",
        total: int | None = None,
    ) -> None:
        self._study, self._runs, self._console = study, runs, console
        self.note = ""
        self._display = ProgressDisplay(console)
        self._rate, self._counted = StepRate(), time.monotonic()
        self._ended = others
        self._all = others + len(runs) if total is None else total
        self._tasks: dict[str, Task] = {}
        self._whole = self._display.add(label, self._all, others)
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
            before = self._steps.get(name, 0)
            taken += max(0, step - before)
            self._steps[name] = max(step, before)
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
        speed = f"{self._rate.value:,.0f} steps/s"
        self._whole.status = "  ".join(filter(None, [speed, self.note]))

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
