"""A search as data: what it varies, what it optimises, and the training of each trial."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agents.config import TrainConfig
from agents.search.objective import Objective, parse_objective
from agents.search.space import (
    Dimension,
    Values,
    combinations,
    configured,
    current_values,
    parse_space,
)
from agents.study.arms import directory_name
from agents.study.directory import PlanFile
from agents.study.plan import RUNTIME_OPTIONS, StudyRun, option_differences
from envs.errors import UserError
from envs.registry import find_spec, game_name
from rlcnn.config.fields import MAX_SEED
from rlcnn.runs.files import plain

Sampler = Literal["tpe", "random"]
Pruning = Literal["median", "off"]

SEARCH = PlanFile("search", "search.json", "--search-dir")
TRIALS, FINALS = "trials", "finals"


@dataclass(frozen=True)
class Effort:
    """How long a search goes on, and how; it may change from one start to the next.

    Attributes:
        trials: trainings with values of the space, each with the seed of the base.
        finalists: how many of the best trials are trained again; 0 for none.
        final_seeds: trainings of each of them, with the seeds that follow.
        sampler: proposes values: Optuna's TPE, or at random.
        pruning: whether a trial ends early if it is behind the median of the others.
    """

    trials: int = 30
    finalists: int = 2
    final_seeds: int = 3
    sampler: Sampler = "tpe"
    pruning: Pruning = "median"

    def validate(self) -> None:
        """Raises ``UserError`` for values that are not valid."""
        for name, least in (("trials", 1), ("finalists", 0), ("final_seeds", 1)):
            value = getattr(self, name)
            if not least <= value <= 1_000_000:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {value} must be at least {least} and at most 1000000")


@dataclass(frozen=True)
class SearchPlan:
    """What a search varies and optimises; ``base`` holds every other option, and the seed."""

    space: tuple[Dimension, ...]
    objective: Objective
    base: TrainConfig
    effort: Effort = Effort()

    @property
    def game(self) -> str:
        """The name of the game, for people."""
        return game_name(self.base.env)

    @property
    def current(self) -> Values | None:
        """The values that ``base`` has itself, of the first trial; None if they are outside."""
        return current_values(self.base, self.space)

    @property
    def most_trials(self) -> int:
        """The number of trials, which a finite space may limit."""
        return int(min(self.effort.trials, combinations(self.space)))

    @property
    def final_seeds(self) -> range:
        """The seeds of the finalists: fresh ones, since trials were chosen by theirs."""
        first = self.base.seed + 1
        return range(first, first + self.effort.final_seeds)

    def validate(self) -> None:
        """Raises ``UserError`` for values that are not valid; it makes no environment."""
        self.effort.validate()
        if self.base.eval_episodes < 1:
            raise UserError(
                f"--eval-episodes {self.base.eval_episodes} leaves nothing to compare: expected at"
                " least 1"
            )
        if self.base.seed + self.effort.final_seeds > MAX_SEED:
            raise UserError(
                f"--seed {self.base.seed} leaves no room for --final-seeds"
                f" {self.effort.final_seeds}"
            )
        self.base.validate()
        find_spec(self.base.env)

    def trial(self, number: int, values: Values) -> StudyRun:
        """The training of a trial.

        Raises:
            UserError: the values do not go together.
        """
        config = configured(self.base, values)
        config.validate()
        return StudyRun(self.game, f"trial {number}", config.seed, config, f"{TRIALS}/{number:04d}")

    def finals(self, number: int, values: Values) -> list[StudyRun]:
        """The trainings of a trial that is a finalist."""
        trial = self.trial(number, values)
        return [
            replace(
                trial,
                seed=seed,
                config=replace(trial.config, seed=seed),
                directory=f"{FINALS}/{number:04d}--seed{seed}",
            )
            for seed in self.final_seeds
        ]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return plain(
            {
                "objective": self.objective.text,
                "space": [dimension.text for dimension in self.space],
                "options": self.base.to_json(),
                "effort": asdict(self.effort),
            }
        )

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> SearchPlan:
        """Reads what :meth:`to_json` wrote.

        Raises:
            UserError: it is no such plan.
        """
        try:
            return cls(
                parse_space(shlex.split(text) for text in document["space"]),
                parse_objective(document["objective"]),
                TrainConfig.from_json(document["options"]),
                Effort(**document["effort"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"it holds no plan of a search: {error!r}") from error


def read_plan(path: Path) -> SearchPlan:
    """The plan of a search on disk; ``UserError`` if there is none, or it is damaged."""
    document = SEARCH.read(path)
    try:
        return SearchPlan.from_json(SEARCH.plan_of(document))
    except UserError as error:
        raise UserError(f"{path / SEARCH.name}: {error}") from error


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs in two plans (:meth:`SearchPlan.to_json`) that have different trials."""
    found = []
    if before.get("objective") != now["objective"]:
        found.append(f"--objective {before.get('objective')} there, {now['objective']} here")
    there, here = before.get("space") or [], now["space"]
    found += [f"--search {text} only there" for text in there if text not in here]
    found += [f"--search {text} only here" for text in here if text not in there]
    return found + option_differences(before.get("options") or {}, now["options"])


def default_search_dir(plan: SearchPlan) -> Path:
    """``searches/<game>-<algorithm>-<digest>``: the same command finds it again."""
    document = plan.to_json()
    options = document["options"]
    compared = {
        "objective": document["objective"],
        "space": document["space"],
        "options": {name: options[name] for name in options if name not in RUNTIME_OPTIONS},
    }
    digest = hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()
    return Path("searches") / f"{directory_name(plan.game)}-{plan.base.algo}-{digest[:8]}"


def texts(space: Sequence[Dimension]) -> tuple[tuple[str, ...], ...]:
    """The space as the uses of ``--search``."""
    return tuple(tuple(shlex.split(dimension.text)) for dimension in space)
