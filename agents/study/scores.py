"""Normalised scores of a study, handed to :mod:`rlcnn.stats.verdict` for its verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from agents.evaluate.references import reference_scores
from agents.study.results import StudyResults
from envs.errors import UserError
from envs.registry import game_name
from rlcnn.stats import (
    RandomAgent,
    Result,
    Verdict,
    human_normalise,
    judge,
    random_normalise,
    tabulate,
)
from rlcnn.stats.checks import FloatArray

FEWEST_ERRORS = 4
"""Standard errors by which a human's score must exceed the mean of random play."""


@dataclass(frozen=True)
class Scale:
    """How returns are normalised: acting at random is 0.

    ``games`` have the names that runs give them. With ``human`` 1 is the human's score; else the
    unit is a deviation of random play. ``notes`` has a line for each limit of the scale.
    """

    games: tuple[str, ...]
    human: bool
    random_agent: RandomAgent
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, env_ids: Sequence[str], random_agent: RandomAgent, changed: bool = False) -> Scale:
        """The human's scale if all games have a human score far enough above random play.

        The zero of that scale is a mean over a few random games. A human's score within four of
        its standard errors would leave the unit of the scale uncertain by a quarter or more, and a
        normalised score would be amplified noise.

        ``changed`` says that arguments or wrappers make other games of them, such as another mode,
        to which a human's score does not apply.
        """
        games = tuple(map(game_name, env_ids))
        humans = [None if changed else human_score(env_id) for env_id in env_ids]
        human, notes = None not in humans, []
        for game, score in zip(games, humans, strict=True):
            mean, error = random_agent.mean(game), random_agent.error(game)
            if human and score is not None and score - mean <= FEWEST_ERRORS * error:
                notes.append(
                    f"a human's {score:g} in {game} is too near the {mean:.4g} of random play"
                    f" (standard error {error:.2g}), so scores are in deviations of random play and"
                    " not on the human's scale"
                )
        if notes or not human:
            notes += [
                f"all random games of {game} returned {random_agent.mean(game):g}, so its scores"
                " are points above that"
                for game in games
                if random_agent.deviation(game) == 0
            ]
        return cls(games, human and not notes, random_agent, tuple(notes))

    @property
    def unit(self) -> str:
        """Name of a normalised score."""
        if self.human:
            return "human-normalised score"
        spread = any(self.random_agent.deviation(game) for game in self.games)
        return "deviations of random play" if spread else "points above random play"

    def normalise(self, returns: ArrayLike, games: Sequence[str] | None = None) -> FloatArray:
        """Normalises mean returns (..., games); ``games`` name the last axis, by default all.

        Raises:
            UserError: the returns cannot be normalised.
        """
        named = self.games if games is None else games
        if self.human:
            return human_normalise(returns, named, self.random_agent)
        deviations = {game: self.random_agent.deviation(game) or 1.0 for game in named}
        return random_normalise(returns, named, replace(self.random_agent, deviations=deviations))


def human_score(env_id: str) -> float | None:
    """A human's score in one of ALE's games; None if unknown, and for all other environments."""
    reference = reference_scores(env_id)
    return reference.human if reference else None


@dataclass(frozen=True)
class StudyScores:
    """The normalised scores, arm -> (runs, games), of a study whose runs have all ended.

    ``notes`` has a line for each limit of the scores; ``failed`` counts the failed runs of an arm.
    """

    scale: Scale
    scores: Mapping[str, FloatArray]
    notes: tuple[str, ...]
    failed: Mapping[str, int]


def study_scores(results: StudyResults) -> StudyScores:
    """Normalises the scores of all runs; a failed run counts with the random agent's mean.

    Raises:
        UserError: a run is neither done nor failed, or scores cannot be normalised.
    """
    for run in results.runs:
        if run.state not in ("done", "failed"):
            raise UserError(f"there is no verdict before {run.name} is done")
    table = tabulate(
        (Result(run.arm, run.game, run.seed, run.score) for run in results.runs),
        failed_as=results.random_agent.means,
    )
    scale = Scale.of(
        results.plan.games, results.random_agent, results.plan.base.environment.is_changed
    )
    scores = {arm: scale.normalise(array, table.games) for arm, array in table.scores.items()}
    return StudyScores(scale, scores, (*table.notes, *scale.notes), table.failed)


def verdicts(results: StudyResults, scores: StudyScores) -> list[Verdict]:
    """Compares every arm with the control, or raises ``UserError`` if that is impossible."""
    plan, scale = results.plan, scores.scale
    dead = Counter(
        run.arm for run in results.runs if run.is_dead(results.random_agent.means.get(run.game))
    )
    limits = [scale.random_agent.limit(game, plan.base.eval_episodes) for game in scale.games]
    return [
        judge(
            scores.scores,
            arm,
            plan.control,
            learned_above=scale.normalise(np.array(limits)),
            comparisons=len(plan.treatments),
            unit=scale.unit,
            failed=scores.failed,
            dead=dead,
        )
        for arm in plan.treatments
    ]
