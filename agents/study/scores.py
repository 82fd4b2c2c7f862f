"""What a study shows: each arm against one of them, on normalised scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from agents.study.plan import StudyPlan
from envs.errors import UserError
from envs.registry import atari_rom, game_name
from rlcnn.report import RunResult
from rlcnn.stats.checks import FloatArray
from rlcnn.stats.scores import ATARI57, RandomAgent, human_normalise, random_normalise
from rlcnn.stats.table import Result, tabulate
from rlcnn.stats.verdict import Verdict, judge

FEWEST_ERRORS = 4
"""Standard errors of random play's mean that a human must stand above it."""


@dataclass(frozen=True)
class Scale:
    """How returns are normalised: acting at random is 0.

    Attributes:
        games: by the names that runs give them.
        human: whether 1 is the human's score; else deviations of the random agent are counted.
        random_agent: measured in all games.
        notes: a line for each thing to know of it.
    """

    games: tuple[str, ...]
    human: bool
    random_agent: RandomAgent
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, env_ids: Sequence[str], random_agent: RandomAgent) -> Scale:
        """The human's scale where all games have a human score, far enough from random play.

        The zero of that scale is a mean over a few random games. Where the human stands no more
        than four of its standard errors above it, the length of the scale is known to a quarter at
        best, and a normalised score would be noise, blown up.
        """
        games = tuple(map(game_name, env_ids))
        humans = [human_score(env_id) for env_id in env_ids]
        human, notes = None not in humans, []
        for game, score in zip(games, humans, strict=True):
            mean, error = random_agent.mean(game), random_agent.error(game)
            if human and score is not None and score - mean <= FEWEST_ERRORS * error:
                notes.append(
                    f"a human's {score:g} in {game} is too near the {mean:.4g} of random play"
                    f" (standard error {error:.2g}), so scores are counted in deviations of random"
                    " play and not on the human's scale"
                )
        if notes or not human:
            notes += [
                f"all random games of {game} returned {random_agent.mean(game):g}, so scores there"
                " are points above that"
                for game in games
                if random_agent.deviation(game) == 0
            ]
        return cls(games, human and not notes, random_agent, tuple(notes))

    @property
    def unit(self) -> str:
        """What a normalised score is called."""
        if self.human:
            return "human-normalised score"
        spread = any(self.random_agent.deviation(game) for game in self.games)
        return "deviations of random play" if spread else "points above random play"

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
        deviations = {game: self.random_agent.deviation(game) or 1.0 for game in named}
        return random_normalise(returns, named, replace(self.random_agent, deviations=deviations))


def human_score(env_id: str) -> float | None:
    """A human's score in one of ALE's games; None where none is known, and in all other worlds."""
    try:
        rom = atari_rom(env_id)
    except UserError:
        return None
    return ATARI57[rom].human if rom in ATARI57 else None


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


def study_scores(
    plan: StudyPlan, runs: Sequence[RunResult], random_agent: RandomAgent
) -> StudyScores:
    """Normalises the scores of all runs; one that failed counts with the random agent's mean.

    Args:
        plan: of the study.
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
    scale = Scale.of(plan.games, random_agent)
    scores = {arm: scale.normalise(array, table.games) for arm, array in table.scores.items()}
    return StudyScores(scale, scores, (*table.notes, *scale.notes), table.failed)


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
