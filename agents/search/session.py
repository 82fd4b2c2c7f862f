"""Trains the trials of a search: watches those that run, ends them early, keeps their results."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from agents.launchers.local import Job, Launcher, Outcome
from agents.search.finals import best_trials, run_value
from agents.search.objective import NEVER, Curve
from agents.search.plan import SearchPlan
from agents.search.trials import TrialResult, Trials
from agents.study.display import StudyDisplay
from agents.study.jobs import record_outcome, training_job
from agents.study.plan import StudyRun
from agents.study.results import last_figures, read_result
from envs.errors import UserError
from rlcnn.runs.stopping import TrainingStopped

WARM_UP = 0.2
"""Share of its steps that a trial takes before it may be pruned."""

MOST_FAILED = 5
"""Failed trials in a row before a search stops: the reason is hardly their values."""

_WATCH_SECONDS = 1.0


class Session:
    """Runs the trials that are left.

    Args:
        path: the directory of the search.
        plan: the search.
        trials: its trials.
        launcher: runs them.
        command: the command line that began the search.
        console: shows progress.
    """

    def __init__(
        self,
        path: Path,
        plan: SearchPlan,
        trials: Trials,
        launcher: Launcher,
        command: Sequence[str],
        console: Console,
    ) -> None:
        self._path, self._plan, self._trials = path, plan, trials
        self._launcher, self._command = launcher, command
        self._runs: dict[str, StudyRun] = {}
        self._numbers: dict[str, int] = {}
        self._asked: dict[str, Literal["pruned", "reached"]] = {}
        self._failed_in_a_row, self._watched = 0, 0.0
        ended = sum(each.state not in ("skipped", "begun") for each in trials.results())
        total = plan.most_trials
        self._display = StudyDisplay(path, self._runs, ended, console, "search: trials", total)

    def run(self) -> None:
        """Runs them to the end.

        Raises:
            UserError: no trial can be proposed, or several failed in a row.
            TrainingStopped: a run was stopped from elsewhere.
        """
        stopped = False
        try:
            with closing(self._launcher.run(self._jobs(), self._tick)) as outcomes:
                for outcome in outcomes:
                    result = self._settle(outcome)
                    stopped |= result is None
                    self._display.ended(outcome.name, self._described(result))
                    self._note_best()
        finally:
            self._display.close()
        if stopped:
            raise TrainingStopped

    def _jobs(self) -> Iterator[Job]:
        for number, run in self._trials.begun():
            yield self._job(number, run)
        while self._counted() < self._plan.most_trials:
            if (proposal := self._trials.propose()) is None:
                return
            yield self._job(*proposal)

    def _job(self, number: int, run: StudyRun) -> Job:
        self._runs[run.name], self._numbers[run.name] = run, number
        return training_job(self._path, run, self._launcher.threads, self._command)

    def _counted(self) -> int:
        return sum(each.state != "skipped" for each in self._trials.results())

    def _tick(self, running: Collection[str]) -> None:
        self._display.tick(running)
        if time.monotonic() - self._watched < _WATCH_SECONDS:
            return
        for name in running:
            if name not in self._asked and (why := self._why_enough(name)):
                self._asked[name] = why
                self._launcher.stop(name)
        self._watched = time.monotonic()

    def _why_enough(self, name: str) -> Literal["pruned", "reached"] | None:
        """Why a running trial should end now; None if it should go on."""
        run, objective = self._runs[name], self._plan.objective
        steps = run.config.total_steps
        curve = objective.curve(self._path / run.directory, self._plan.base)
        if not len(curve.steps) or curve.steps[-1] >= steps:
            return None
        if objective.reached(curve):
            return "reached"
        if self._plan.effort.pruning == "off":
            return None
        behind = self._trials.report(self._numbers[name], objective.interim(curve, steps))
        behind &= bool(curve.steps[-1] >= WARM_UP * steps)
        return "pruned" if behind or self._is_too_late(curve) else None

    def _is_too_late(self, curve: Curve) -> bool:
        """Whether as many trials as there are finalists have reached the score in less time."""
        if self._plan.objective.kind != "seconds-to":
            return False
        times = [each.value for each in best_trials(self._plan, self._trials.results())]
        reached = [time for time in times if time is not None and time < NEVER]
        places = max(1, self._plan.effort.finalists)
        return len(reached) >= places and bool(curve.seconds[-1] > reached[places - 1])

    def _settle(self, outcome: Outcome) -> TrialResult | None:
        """Notes how a trial ended; None if it was stopped and will go on at the next start."""
        run, number = self._runs[outcome.name], self._numbers[outcome.name]
        asked = self._asked.pop(outcome.name, None)
        if asked is None:
            record_outcome(self._path, run, outcome)
        result = read_result(self._path, run)
        curve = self._plan.objective.curve(self._path / run.directory, self._plan.base)
        figures: dict[str, Any] = {
            "steps": result.steps or last_figures(self._path / run.directory)[0],
            "wall_seconds": result.wall_seconds or _last(curve),
            "score": result.score,
        }
        if result.state == "done" or asked == "reached":
            try:
                value = run_value(self._path, self._plan, run, result)
                ended = self._trials.end(number, "done", value, **figures)
            except UserError as error:
                ended = self._trials.end(number, "failed", **figures, reason=str(error))
        elif asked == "pruned":
            ended = self._trials.end(number, "pruned", **figures)
        elif outcome.state == "stopped":
            return None
        else:
            reason = outcome.reason or result.reason
            ended = self._trials.end(number, "failed", **figures, reason=reason)
        self._drop_checkpoints()
        self._failed_in_a_row = self._failed_in_a_row + 1 if ended.state == "failed" else 0
        if self._failed_in_a_row == MOST_FAILED:
            raise UserError(
                f"the last {MOST_FAILED} trials failed: {ended.reason}; the same command goes on"
            )
        return ended

    def _drop_checkpoints(self) -> None:
        """Removes the checkpoints of trials that have ended and are not among the best: with a
        replay they are gigabytes, and each trial can be trained again from its options.
        """
        results = self._trials.results()
        best = best_trials(self._plan, results)[: max(1, self._plan.effort.finalists)]
        for trial in results:
            if trial.state in ("done", "pruned", "failed") and trial not in best:
                run_dir = self._path / "trials" / f"{trial.number:04d}"
                shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)

    def _described(self, result: TrialResult | None) -> str:
        if result is None:
            return "stopped"
        if result.state == "done":
            return self._plan.objective.written(result.value)
        if result.state == "pruned":
            return f"pruned after {result.steps or 0:,} steps"
        return f"failed: {result.reason}"

    def _note_best(self) -> None:
        if best := best_trials(self._plan, self._trials.results()):
            value = self._plan.objective.written(best[0].value)
            self._display.note = f"best: trial {best[0].number}, {value}"


def _last(curve: Curve) -> float | None:
    seconds = float(curve.seconds[-1]) if len(curve.seconds) else math.nan
    return None if math.isnan(seconds) else seconds
