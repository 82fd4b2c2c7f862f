"""What a study shows: each arm against one of them, on normalised scores."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from agents.study_plan import StudyPlan
from agents.study_results import RunResult
from envs.errors import UserError
from rlcnn.stats.scores import RandomAgent, find_game, human_normalise, random_normalise
from rlcnn.stats.table import Result, tabulate
from rlcnn.stats.verdict import Verdict, judge


def control_arm(plan: StudyPlan) -> str:
    """The arm that the others are judged by: the first from scratch, or the first of all."""
    kinds = [arm.kind for arm in plan.arms]
    return plan.arm_names[kinds.index("scratch") if "scratch" in kinds else 0]


def verdicts(
    plan: StudyPlan, runs: Sequence[RunResult], random_agent: RandomAgent
) -> tuple[list[Verdict], list[str]]:
    """Judges every arm by :func:`control_arm`.

    A run that failed counts with the random agent's mean return. Scores are human-normalised where
    all games have a human score, else counted in deviations of the random agent's games.

    Args:
        plan: of the study.
        runs: all of them, done or failed.
        random_agent: measured in all games, by the names that ``runs`` give them.

    Returns:
        The verdicts, and a line for each thing to know of the scores they rest on.

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
    games = table.games
    human = False
    with suppress(UserError):
        human = all(find_game(game) for game in games)
    unit = "human-normalised score" if human else "deviations of random play"

    def normalise(scores: np.ndarray) -> np.ndarray:
        if human:
            return human_normalise(scores, games, random_agent)
        return random_normalise(scores, games, random_agent)

    scores = {arm: normalise(array) for arm, array in table.scores.items()}
    limits = [random_agent.limit(game, plan.base.eval_episodes) for game in games]
    control = control_arm(plan)
    others = [arm for arm in plan.arm_names if arm != control]
    told = [
        judge(
            scores,
            arm,
            control,
            learned_above=normalise(np.array(limits)),
            comparisons=len(others),
            unit=unit,
        )
        for arm in others
    ]
    return told, list(table.notes)
