"""The trials of a search in Optuna's storage, an SQLite file that outlives any end of a process.

Only the process that runs the search opens it: workers train, and know nothing of Optuna.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agents.config import TrainConfig
from agents.search.plan import SearchPlan
from agents.search.space import Values, combinations
from agents.study.plan import StudyRun
from agents.train.builder import build_agent, make_train_env
from envs.errors import UserError, first_line

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

DATABASE = "trials.db"

State = Literal["done", "pruned", "failed", "begun", "skipped"]

MOST_SKIPPED = 100
"""Proposals in a row that cannot be trained, or were already, before a search gives up."""

_MOST_LISTED = 100_000


@dataclass(frozen=True)
class TrialResult:
    """A trial and its state; a figure is None as long as it is unknown.

    Attributes:
        number: in the order of proposals, from 0.
        values: of the options that the search varies.
        state: "done", "pruned" (ended early, behind others), "failed", "begun", or "skipped" (its
            values cannot be trained, or were already).
        value: of the objective.
        score: mean return of the final evaluation.
        steps: agent steps taken.
        wall_seconds: time of all attempts together.
        reason: why it failed or was skipped.
    """

    number: int
    values: Values
    state: State
    value: float | None = None
    score: float | None = None
    steps: int | None = None
    wall_seconds: float | None = None
    reason: str = ""


def require_optuna() -> Any:
    """The module ``optuna``, without its messages.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            'a search needs Optuna, which is not installed: pip install "rlcnn[search]"'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Trials:
    """The trials of a search: proposes new ones and keeps the results of all.

    Args:
        path: the directory of the search, which exists and is held by this process.
        plan: the search.

    Raises:
        UserError: Optuna is not installed, or the file of the trials is damaged or missing.
    """

    def __init__(self, path: Path, plan: SearchPlan) -> None:
        self._optuna = require_optuna()
        self._plan, self._file = plan, path / DATABASE
        if not self._file.exists() and any((path / "trials").glob("*")):
            raise UserError(f"{self._file} is missing, which holds the results of the trials")
        pruners = self._optuna.pruners
        pruner = pruners.MedianPruner() if plan.effort.pruning == "median" else pruners.NopPruner()
        with self._database_errors():
            # The path is no part of the URL, since it may have any character.
            creator = partial(connect, self._file.absolute())
            storage = self._optuna.storages.RDBStorage(
                f"sqlite:///{DATABASE}", engine_kwargs={"creator": creator}
            )
            self.study: Study = self._optuna.create_study(
                storage=storage,
                study_name="search",
                direction=plan.objective.direction,
                pruner=pruner,
                load_if_exists=True,
            )
            if not self._all() and (current := plan.current) is not None:
                self.study.enqueue_trial(current)
        self._handles: dict[int, Trial] = {}
        # The rungs for which the storage has a value.
        self._reported: dict[int, set[int]] = {}

    def results(self) -> list[TrialResult]:
        """All trials, in order."""
        return [self._result(trial) for trial in self._all() if trial.state.name != "WAITING"]

    def begun(self) -> list[tuple[int, StudyRun]]:
        """Trials that have begun and not ended, such as those of a killed search."""
        taken = []
        for frozen in self._all():
            if frozen.state.name == "RUNNING":
                with self._database_errors():
                    # Optuna has no public way to go on with a trial of another process.
                    trial = self._optuna.trial.Trial(self.study, frozen._trial_id)
                    if (run := self._take(trial)) is not None:
                        taken.append((frozen.number, run))
        return taken

    def propose(self) -> tuple[int, StudyRun] | None:
        """The next trial; None if every combination of a finite space has been tried.

        Values that cannot be trained together, and those of an earlier trial, are skipped.

        Raises:
            UserError: nothing that Optuna proposes can be trained.
        """
        for _ in range(MOST_SKIPPED):
            with self._database_errors():
                number = len(self._all())
                # What is proposed depends on the earlier trials alone, however often a search is
                # stopped; a sampler made anew with one seed would repeat its first draws.
                self.study.sampler = self._sampler(self._plan.base.seed + number)
                trial = self.study.ask()
                run = self._take(trial)
                if run is not None:
                    return trial.number, run
                untried = self._untried()
                if untried == []:
                    return None
                if untried:
                    self.study.enqueue_trial(random.Random(number).choice(untried))
        reason = self.results()[-1].reason
        raise UserError(f"the last {MOST_SKIPPED} proposals cannot be trained: {reason}")

    def report(self, number: int, interim: Mapping[int, float]) -> bool:
        """Notes what a trial has shown by each rung; whether it is behind and should end."""
        trial, known = self._handles[number], self._reported[number]
        new = {rung: value for rung, value in interim.items() if rung not in known}
        known.update(new)
        with self._database_errors():
            for rung, value in new.items():
                trial.report(value, rung)
            return bool(new) and trial.should_prune()

    def end(
        self, number: int, state: State, value: float | None = None, **figures: Any
    ) -> TrialResult:
        """Ends a trial; ``figures`` are those of :class:`TrialResult`."""
        states = self._optuna.trial.TrialState
        kind = {"done": states.COMPLETE, "pruned": states.PRUNED}.get(state, states.FAIL)
        trial = self._handles.pop(number)
        with self._database_errors():
            for name, figure in figures.items():
                trial.set_user_attr(name, figure)
            if state == "skipped":
                trial.set_user_attr("skipped", True)
            self.study.tell(trial, None if value is None or state != "done" else value, kind)
            return self._result(self._all()[number])

    def importances(self) -> dict[str, float]:
        """The share of each option in the variance of the ranks of finished trials (fANOVA).

        Ranks, since one trial that fails to learn may be far from all others. Empty for fewer than
        4 different values.
        """
        done = [trial for trial in self._all() if trial.state.name == "COMPLETE"]
        ordered = sorted({trial.value for trial in done if trial.value is not None})
        if len(ordered) < 4:
            return {}
        importance = self._optuna.importance
        return dict(
            importance.get_param_importances(
                self.study,
                evaluator=importance.FanovaImportanceEvaluator(seed=0),
                target=lambda trial: float(ordered.index(trial.value)),
            )
        )

    def _all(self) -> list[FrozenTrial]:
        with self._database_errors():
            return self.study.get_trials(deepcopy=False)

    def _take(self, trial: Trial) -> StudyRun | None:
        """The training of a trial that was proposed; None if it is skipped."""
        self._handles[trial.number] = trial
        self._reported[trial.number] = set(self._all()[trial.number].intermediate_values)
        values = {each.name: each.suggest(trial) for each in self._plan.space}
        for other in self._all()[: trial.number]:
            if self._values(other) == values and not _skipped(other):
                self.end(trial.number, "skipped", reason=f"same values as trial {other.number}")
                return None
        try:
            run = self._plan.trial(trial.number, values)
            check_builds(run.config)
        except UserError as error:
            self.end(trial.number, "skipped", reason=str(error))
            return None
        return run

    def _untried(self) -> list[Values] | None:
        """The combinations that no trial has, also no skipped one; None for too many to list."""
        space = self._plan.space
        if combinations(space) > _MOST_LISTED:
            return None
        names = [each.name for each in space]
        tried = {tuple(map(self._values(trial).get, names)) for trial in self._all()}
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*(each.listed() for each in space))
            if values not in tried
        ]

    def _values(self, trial: FrozenTrial) -> Values:
        params = trial.params
        return {e.name: e.rounded(params[e.name]) for e in self._plan.space if e.name in params}

    def _sampler(self, seed: int) -> Any:
        samplers = self._optuna.samplers
        if self._plan.effort.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed)

    def _result(self, trial: FrozenTrial) -> TrialResult:
        figures = {name: value for name, value in trial.user_attrs.items() if name != "skipped"}
        states: dict[str, State] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        state = "skipped" if _skipped(trial) else states.get(trial.state.name, "begun")
        # Optuna gives a pruned trial its last interim value.
        value = trial.value if state == "done" else None
        return TrialResult(trial.number, self._values(trial), state, value, **figures)

    @contextmanager
    def _database_errors(self) -> Iterator[None]:
        """Turns errors of the database into one line."""
        # Optuna brings it.
        from sqlalchemy.exc import DatabaseError

        try:
            yield
        except (DatabaseError, self._optuna.exceptions.StorageInternalError) as error:
            cause = error.__cause__ or error
            raise UserError(f"{self._file} cannot be used: {first_line(cause)}") from error


def connect(file: Path) -> sqlite3.Connection:
    """A connection to the file of the trials."""
    return sqlite3.connect(file, check_same_thread=False)


def check_builds(config: TrainConfig) -> None:
    """Builds the agent of a training once.

    Raises:
        UserError: it cannot be built.
    """
    # Without what only matters for the place and speed of the training.
    config = replace(config, device="cpu", num_threads=1, compile="off", overlap="off").resolve()
    with closing(make_train_env(config)) as venv:
        build_agent(config, venv)


def _skipped(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("skipped"))
