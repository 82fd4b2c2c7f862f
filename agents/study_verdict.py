"""What a study shows: each arm against one of them, on normalised scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from agents.study_plan import StudyPlan
from envs.errors import UserError
from rlcnn.report import RunResult
from rlcnn.stats.checks import FloatArray
from rlcnn.stats.scores import RandomAgent, find_game, human_normalise, random_normalise
from rlcnn.stats.table import Result, tabulate
from rlcnn.stats.verdict import Verdict, judge


@dataclass(frozen=True)
class Scale:
    """How returns are normalised: acting at random is 0.

    Attributes:
        games: by the names that runs give them.
        human: whether 1 is the human's score; else deviations of the random agent are counted.
        random_agent: measured in all games.
    """

    games: tuple[str, ...]
    human: bool
    random_agent: RandomAgent

    @classmethod
    def of(cls, games: Sequence[str], random_agent: RandomAgent) -> Scale:
        """The human's scale where all games have a human score."""
        human = False
        with suppress(UserError):
            human = all(find_game(game) for game in games)
        return cls(tuple(games), human, random_agent)

    @property
    def unit(self) -> str:
        """What a normalised score is called."""
        return "human-normalised score" if self.human else "deviations of random play"

    def normalise(self, returns: ArrayLike, games: Sequence[str] | None = None) -> FloatArray:
        """Normalises returns (..., games).

        Args:
            returns: mean returns.
            games: of the last axis; by default all.

        Raises:
            UserError: they cannot be normalised.
        """
        named = self.games if games is None else games
        if self.human:
            return human_normalise(returns, named, self.random_agent)
        return random_normalise(returns, named, self.random_agent)


@dataclass(frozen=True)
class StudyScores:
    """The normalised scores of a study whose runs have all ended.

    Attributes:
        scale: they are normalised by.
        scores: arm -> (runs, games).
        notes: a line for each thing to know of them.
        failed: arm -> how many of its runs failed.
    """

    scale: Scale
    scores: Mapping[str, FloatArray]
    notes: tuple[str, ...]
    failed: Mapping[str, int]


def control_arm(plan: StudyPlan) -> str:
    """The arm that the others are judged by: the first from scratch, or the first of all."""
    kinds = [arm.kind for arm in plan.arms]
    return plan.arm_names[kinds.index("scratch") if "scratch" in kinds else 0]


def study_scores(runs: Sequence[RunResult], random_agent: RandomAgent) -> StudyScores:
    """Normalises the scores of all runs; one that failed counts with the random agent's mean.

    Args:
        runs: all of them, done or failed.
        random_agent: measured in all games, by the names that ``runs`` give them.

    Raises:
        UserError: a run is neither done nor failed, or scores cannot be normalised.
    """
    for run in runs:
        if run.state not in ("done", "failed"):
            raise UserError(
                f"there is no verdict before {run.game}, {run.arm}, seed {run.seed} is done"
            )
    table = tabulate(
        (Result(run.arm, run.game, run.seed, run.score) for run in runs),
        failed_as=random_agent.means,
    )
    scale = Scale.of(table.games, random_agent)
    scores = {arm: scale.normalise(array) for arm, array in table.scores.items()}
    return StudyScores(scale, scores, table.notes, table.failed)


def verdicts(plan: StudyPlan, study: StudyScores) -> list[Verdict]:
    """Judges every arm by :func:`control_arm`.

    Args:
        plan: of the study.
        study: its scores.

    Raises:
        UserError: they cannot be compared.
    """
    scale = study.scale
    episodes = plan.base.eval_episodes
    limits = [scale.random_agent.limit(game, episodes) for game in scale.games]
    control = control_arm(plan)
    others = [arm for arm in plan.arm_names if arm != control]
    return [
        judge(
            study.scores,
            arm,
            control,
            learned_above=scale.normalise(np.array(limits)),
            comparisons=len(others),
            unit=scale.unit,
            failed=study.failed,
        )
        for arm in others
    ]
