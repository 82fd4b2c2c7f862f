"""What a search has shown, its table and the configuration of its winner."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.search.finals import Finalist, best_trials, finalists, gain, winner_of
from agents.search.objective import NEVER
from agents.search.plan import SearchPlan
from agents.search.space import Values, configured, written
from agents.search.trials import TrialResult, Trials
from envs.errors import in_shell
from rlcnn.report.style import interval, number, signed
from rlcnn.runs.files import write_atomic, write_json_atomic

CONFIG, TABLE = "config.json", "trials.csv"


@dataclass(frozen=True)
class SearchResults:
    """All that a search in the directory ``path`` has shown, finished or not.

    Attributes:
        document: the content of ``search.json``.
        trials: in their order.
        finals: the finalists, the best trial first.
        winner: the values of the winner; None while runs are missing.
        importances: option -> its share in the variance of the trials' ranks.
    """

    path: Path
    plan: SearchPlan
    document: Mapping[str, Any]
    trials: tuple[TrialResult, ...]
    finals: tuple[Finalist, ...]
    winner: Values | None
    importances: Mapping[str, float]

    @classmethod
    def read(
        cls, path: Path, plan: SearchPlan, trials: Trials, document: Mapping[str, Any]
    ) -> SearchResults:
        """Reads the results from the files of the search."""
        results = trials.results()
        finals = finalists(path, plan, results)
        counted = [trial for trial in results if trial.state != "skipped"]
        # A space may have fewer combinations than there were to be trials.
        open_trials = any(trial.state == "begun" for trial in counted) or not counted
        winner = None if open_trials else winner_of(plan, results, finals)
        importances = trials.importances()
        return cls(path, plan, document, tuple(results), tuple(finals), winner, importances)

    @property
    def complete(self) -> bool:
        """Whether there is a winner, and no run of a finalist failed."""
        return self.winner is not None and all(each.complete for each in self.finals)

    def lines(self) -> list[str]:
        """The results for people, the best trials first."""
        plan, objective = self.plan, self.plan.objective
        states = [trial.state for trial in self.trials]
        counts = ", ".join(
            f"{states.count(state)} {state}"
            for state in ("done", "pruned", "failed", "begun", "skipped")
            if state in states
        )
        lines = [f"trials: {counts or 'none yet'}"]
        best = best_trials(plan, self.trials)
        for trial in best[: max(1, plan.effort.finalists)]:
            values = self.shown(trial.values)
            lines.append(f"trial {trial.number}: {objective.written(trial.value)}: {values}")
        for trial in self.trials:
            if trial.state == "failed":
                lines.append(f"failed: trial {trial.number}: {trial.reason}")
        for each in self.finals:
            now = ", the present values" if each.is_current else ""
            lines.append(f"finalist: {each.name}{now}: {each.described(objective)}")
            lines += [
                f"failed: {run.name}: {run.reason}" for run in each.results if run.state == "failed"
            ]
        if self.winner is None:
            lines.append("no winner yet" if best else "no winner: no trial has a result")
        else:
            lines.append(f"winner: {self.shown(self.winner)}")
        return [*lines, *self.notes]

    @property
    def notes(self) -> list[str]:
        """Sentences about the winner, for people."""
        objective, best = self.plan.objective, best_trials(self.plan, self.trials)
        notes = []
        if best and objective.kind == "seconds-to" and (best[0].value or 0.0) >= NEVER:
            most = number(objective.best(best[0].value or 0.0))
            notes.append(
                f"No trial reached {objective.target:g}; the best had {most}:"
                " search for a lower score, or take more --total-steps."
            )
        if self.plan.current is None:
            notes.append("The space does not hold the present values: nothing compares with them.")
        return [*notes, *filter(None, [self._gain])]

    @property
    def _gain(self) -> str:
        """The winner against the present values, with the interval of the difference."""
        current = next((each for each in self.finals if each.is_current), None)
        won = next((each for each in self.finals if each.trial.values == self.winner), None)
        if current is None or won is None:
            return ""
        if won is current:
            return "The present values won: no finalist was better than they."
        difference = gain(self.plan, won, current)
        if difference is None:
            return ""
        reach = "no interval"
        if difference.freedom:
            reach = f"95% interval {interval(difference.low, difference.high, signed)}"
        better = "less" if self.plan.objective.sign < 0 else "more"
        certain = difference.side == self.plan.objective.sign
        return (
            f"Against the present values: {signed(difference.point)} ({reach}; {better} is better)."
            + ("" if certain else " That may be chance.")
        )

    def shown(self, values: Values) -> str:
        """Values as options of a command line."""
        return " ".join(
            f"--{name} {written(values[name])}"
            if not isinstance(values[name], bool)
            else _switch(name, bool(values[name]))
            for name in values
        )


def write_tables(results: SearchResults) -> list[str]:
    """Writes ``trials.csv`` and, if there is a winner, ``config.json``; lines that name them."""
    path, names = results.path, [dimension.name for dimension in results.plan.space]
    text = io.StringIO()
    figures = ["trial", "state", "value", "score", "steps", "wall_seconds", "reason"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*figures, *names])
    for trial in results.trials:
        values = [trial.values.get(name) for name in names]
        value = trial.value if trial.value is None or trial.value < NEVER else "not reached"
        row = [trial.number, trial.state, value, trial.score, trial.steps, trial.wall_seconds]
        writer.writerow([*row, trial.reason, *(written(v) for v in values)])
    write_atomic(path / TABLE, text.getvalue())
    lines = [f"table:  {path / TABLE}"]
    if results.winner is not None:
        config = configured(results.plan.base, results.winner)
        search = {"objective": results.plan.objective.text, "values": results.winner}
        write_json_atomic(path / CONFIG, {"config": config.to_json(), "search": search})
        lines.append(f"train:  python scripts/train_agent.py --config {in_shell(path / CONFIG)}")
    else:
        # One of an earlier, shorter search.
        (path / CONFIG).unlink(missing_ok=True)
    return lines


def _switch(name: str, on: bool) -> str:
    section, dot, last = name.rpartition(".")
    return f"--{name}" if on else f"--{section}{dot}no-{last}"
