"""The finalists of a search: its best trials, trained again with other seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.search.objective import NEVER, Objective
from agents.search.plan import SearchPlan
from agents.search.space import Values
from agents.search.trials import TrialResult
from agents.study.plan import StudyRun
from agents.study.results import read_result
from envs.errors import UserError
from rlcnn.report import RunResult
from rlcnn.stats import Difference, difference_interval


@dataclass(frozen=True)
class Finalist:
    """A trial that is trained again, with the results so far.

    ``objectives`` has the value of each run in the order of ``runs``, None without a result.
    """

    trial: TrialResult
    runs: tuple[StudyRun, ...]
    results: tuple[RunResult, ...]
    objectives: tuple[float | None, ...]
    is_current: bool

    @property
    def name(self) -> str:
        """For people."""
        return f"trial {self.trial.number}"

    @property
    def complete(self) -> bool:
        """Whether every run has a value."""
        return None not in self.objectives

    @property
    def known(self) -> list[float]:
        """The values of the runs that have one."""
        return [value for value in self.objectives if value is not None]

    @property
    def mean(self) -> float:
        """The mean of the known values; NaN without any."""
        return statistics.mean(self.known) if self.known else math.nan

    def described(self, objective: Objective) -> str:
        """The mean and the value of each seed, for people."""
        each = ", ".join(map(objective.written, self.objectives))
        reached = [value for value in self.known if value < NEVER]
        if not reached:
            return each
        mean = objective.written(statistics.mean(reached))
        if len(reached) < len(self.objectives):
            mean += f" over {len(reached)} of {len(self.objectives)} seeds"
        return f"mean {mean} ({each})"


def best_trials(plan: SearchPlan, trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The finished trials, the best first; equal ones in their order."""
    done = [trial for trial in trials if trial.value is not None]
    return sorted(done, key=lambda trial: -plan.objective.sign * (trial.value or 0.0))


def finalists(path: Path, plan: SearchPlan, trials: Sequence[TrialResult]) -> list[Finalist]:
    """The best trials and, to compare with, that of the present values, if it could be trained."""
    if not plan.effort.finalists:
        return []
    chosen = best_trials(plan, trials)[: plan.effort.finalists]
    current = [trial for trial in trials if trial.values == plan.current]
    chosen += [trial for trial in current if trial.state in ("done", "pruned")][:1]
    return [
        _finalist(path, plan, trial)
        for number, trial in enumerate(chosen)
        if trial not in chosen[:number]
    ]


def winner_of(
    plan: SearchPlan, trials: Sequence[TrialResult], finals: Sequence[Finalist]
) -> Values | None:
    """The values of the best finalist, or of the best trial if there are to be no finalists.

    None while a finalist's run is neither done nor failed, and if nothing has a value.
    """
    if not plan.effort.finalists:
        return next((trial.values for trial in best_trials(plan, trials)), None)
    if any(run.state not in ("done", "failed") for each in finals for run in each.results):
        return None
    whole = [each for each in finals if each.complete]
    # Of equal ones the present values: there is no reason to change them.
    best = max(
        whole, key=lambda each: (plan.objective.sign * each.mean, each.is_current), default=None
    )
    return best.trial.values if best else None


def gain(plan: SearchPlan, winner: Finalist, current: Finalist) -> Difference | None:
    """The difference of the winner to the present values; None if runs have no value to compare."""
    values = [each.known for each in (winner, current)]
    if min(map(len, values)) < 2 or max(map(max, values)) >= NEVER:
        return None
    treatment, control = ([[value] for value in each] for each in values)
    return difference_interval(treatment, control)


def _finalist(path: Path, plan: SearchPlan, trial: TrialResult) -> Finalist:
    runs = plan.finals(trial.number, trial.values)
    results = [read_result(path, run) for run in runs]
    objectives: list[float | None] = []
    for run, result in zip(runs, results, strict=True):
        value = None
        if result.state == "done":
            try:
                value = run_value(path, plan, run, result)
            except UserError:
                # The table of runs shows its state.
                value = None
        objectives.append(value)
    is_current = trial.values == plan.current
    return Finalist(trial, tuple(runs), tuple(results), tuple(objectives), is_current)


def run_value(path: Path, plan: SearchPlan, run: StudyRun, result: RunResult) -> float:
    """The objective of a run that has ended.

    Raises:
        UserError: it has none.
    """
    curve = plan.objective.curve(path / run.directory, plan.base)
    return plan.objective.value(curve, result.score, run.config.total_steps)
