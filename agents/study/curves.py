"""Learning curves of a study's runs, and transfer metrics from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.config import TrainConfig
from agents.study.pretraining import Pretraining
from agents.study.results import StudyResults
from agents.study.scores import Scale, StudyScores
from agents.train.training import EVALUATION
from envs.errors import UserError
from rlcnn.report import RunCurve, Transfer
from rlcnn.report.curves import common_steps
from rlcnn.report.style import plural
from rlcnn.runs.directory import RunDirectory
from rlcnn.stats import Curves, transfer_metrics
from rlcnn.stats.checks import FloatArray

TRAINING_RETURN = "rollout/ep_rew_mean"
GAME_LENGTH = "rollout/ep_len_mean"

WINDOW = 100
"""Training games over which the logged mean return is taken."""

LAGGING = 0.2
"""Share of a training that these games may span before the page says that curves lag."""

LEAST_EVALUATIONS = 5
"""Evaluations that each run needs for a curve of evaluations."""

HALFWAY = 0.5
"""Threshold on the human's scale."""

GameCurves = Mapping[str, Mapping[str, tuple[RunCurve, ...]]]
"""game -> arm -> the curve of each run."""


class StudyCurves(NamedTuple):
    """The returns of every run, and what they are, for people."""

    curves: GameCurves
    source: str


def study_curves(results: StudyResults) -> StudyCurves:
    """Reads the learning curves of a study from the metrics of its runs.

    The source is evaluations if every finished run has at least 5, else the returns of training
    games. Unreadable metrics are left out. A failed run counts as acting at random from its last
    point on.
    """
    rows = {run.directory: run_metrics(results.path / run.directory) for run in results.runs}
    done = [run.directory for run in results.runs if run.state == "done"]
    by_evaluations = bool(done) and all(
        len(points(rows[directory], EVALUATION)[0]) >= LEAST_EVALUATIONS for directory in done
    )
    key = EVALUATION if by_evaluations else TRAINING_RETURN
    curves: dict[str, dict[str, tuple[RunCurve, ...]]] = {}
    for run in results.runs:
        failed = run.state == "failed"
        curve = RunCurve(
            run.seed,
            *points(rows[run.directory], key),
            ended=failed or run.state == "done",
            failed_as=results.random_agent.means.get(run.game) if failed else None,
        )
        of_game = curves.setdefault(run.game, {})
        of_game[run.arm] = (*of_game.get(run.arm, ()), curve)
    if by_evaluations:
        return StudyCurves(curves, _evaluations(results.plan.base))
    source = f"the last {WINDOW} training games"
    # The largest share of a finished training that the games of its last mean return span.
    share = 0.0
    for directory in done:
        _, lengths = points(rows[directory], GAME_LENGTH)
        for length in lengths[-1:]:
            steps = max(row["step"] for row in rows[directory])
            share = max(share, min(1.0, WINDOW * length / steps))
    if share > LAGGING:
        source += f" (up to {share:.0%} of a training, so that curves lag behind their agents)"
    return StudyCurves(curves, source)


def _evaluations(base: TrainConfig) -> str:
    """The evaluations during training, for people."""
    games = base.interim_episodes or base.eval_episodes
    if games == base.eval_episodes and not base.interim_max_steps:
        return "the evaluations during training"
    most = f" of at most {base.interim_max_steps:,} steps" if base.interim_max_steps else ""
    return (
        f"the evaluations during training ({plural(games, 'game')}{most} each; the last point is"
        f" the final score, of {plural(base.eval_episodes, 'whole game')})"
    )


def transfer_threshold(scores: StudyScores, control: str) -> float:
    """The normalised score to which times are measured: half of the human's.

    Without a human's score, half of the control's mean, or 1 if that is not positive.
    """
    if scores.scale.human:
        return HALFWAY
    mean = float(scores.scores[control].mean())
    return mean / 2 if mean > 0 else 1.0


def transfer_rows(
    results: StudyResults,
    curves: GameCurves,
    scale: Scale,
    threshold: float,
    pretraining: Mapping[str, Pretraining],
) -> list[Transfer]:
    """The gain of each arm, by agent steps and by wall time, without and with its pretraining.

    All runs have ended. Times are measured to ``threshold``, a normalised score; ``pretraining`` is
    the cost of the weights of each arm that began with given ones.
    """
    control = results.plan.control

    def normalised(game: str, arm: str, unit: str, steps: FloatArray) -> Curves:
        """Curves at ``steps``, over steps or over the seconds they took."""
        returns = np.stack([curve.at(steps) for curve in curves[game][arm]])
        scores = scale.normalise(returns[..., None], [game])[..., 0]
        if unit == "steps":
            return Curves.of(steps, scores, f"{arm} in {game}")
        rates = np.array(
            [
                run.wall_seconds / run.steps if run.wall_seconds and run.steps else math.nan
                for run in results.runs_of(game, arm)
            ]
        )
        if np.isnan(rates).all():
            raise UserError(f"no run of {arm} in {game} has a known wall time")
        # A failed run takes the mean of the others of its arm.
        rates = np.where(np.isnan(rates), np.nanmean(rates), rates)
        return Curves.of(steps * rates[:, None], scores, f"{arm} in {game}")

    def transfer(arm: str, spent: str, unit: str, cost: float | None) -> Transfer:
        if cost is None:
            return Transfer(arm, spent, unit, None, "not known")
        try:
            steps = {game: _shared_steps(of_game, arm, control) for game, of_game in curves.items()}
            treatment, other = (
                {game: normalised(game, each, unit, steps[game]) for game in curves}
                for each in (arm, control)
            )
            metrics = transfer_metrics(treatment, other, threshold, pretraining=cost)
        except UserError as error:
            return Transfer(arm, spent, unit, None, str(error))
        return Transfer(arm, spent, unit, metrics)

    rows = []
    for arm in results.plan.treatments:
        before = pretraining.get(arm)
        for spent, unit in (("agent steps", "steps"), ("wall time", "seconds")):
            rows.append(transfer(arm, spent, unit, 0.0))
            if before:
                name = f"{spent.removeprefix('agent ')} with pretraining"
                rows.append(transfer(arm, name, unit, getattr(before, unit)))
    return rows


def _shared_steps(
    of_game: Mapping[str, tuple[RunCurve, ...]], arm: str, control: str
) -> FloatArray:
    """Steps at which all runs of both arms have a value, so that both begin and end there.

    An arm whose runs all failed takes the steps of the other.
    """
    for each in (arm, control):
        if any(curve.first == math.inf for curve in of_game[each]):
            raise UserError(f"{each} has a run without a learning curve")
    steps = common_steps([*of_game[arm], *of_game[control]])
    if not len(steps):
        raise UserError("there is no step at which all runs of both arms were evaluated")
    return steps


def run_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run, perhaps in progress; none if it has not begun or is damaged."""
    try:
        return RunDirectory.open(run_dir).metrics()
    except UserError:
        # Not begun, or damaged: the table of runs shows its state and reason.
        return []


def points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values logged under a key; of two values at one step, the later."""
    found = {
        row["step"]: float(row[key])
        for row in rows
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    }
    steps = sorted(found)
    return np.array(steps, dtype=float), np.array([found[step] for step in steps], dtype=float)
