"""Learning curves of a study's runs, and what they say of transfer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.study.pretraining import Pretraining
from agents.study.scores import Scale
from agents.train.training import EVALUATION
from envs.errors import UserError
from rlcnn.report import RunCurve, RunResult, Transfer
from rlcnn.report.curves import common_steps
from rlcnn.runs.directory import RunDirectory
from rlcnn.stats import Curves, transfer_metrics
from rlcnn.stats.checks import FloatArray

TRAINING_RETURN = "rollout/ep_rew_mean"
GAME_LENGTH = "rollout/ep_len_mean"

WINDOW = 100
"""Games played while learning whose mean is logged."""

LAGGING = 0.2
"""Share of a training that these may last before it is told that they speak of earlier agents."""

LEAST_EVALUATIONS = 5
"""Evaluations of each run below which there is no curve of them."""

HALFWAY = 0.5
"""Normalised score whose time is told where 1 is the human's."""

GameCurves = Mapping[str, Mapping[str, tuple[RunCurve, ...]]]
"""game -> arm -> the curve of each run."""


@dataclass(frozen=True)
class StudyCurves:
    """Learning curves of all runs, from one source.

    Attributes:
        curves: of every run, in returns.
        told: what they are made of, for people.
    """

    curves: GameCurves
    told: str


def study_curves(
    study: Path, runs: Sequence[RunResult], random_means: Mapping[str, float]
) -> StudyCurves:
    """Reads the learning curves of a study from the metrics of its runs.

    Evaluations make the curves where every run that is done has at least 5, else the returns of the
    games that the agents played while they learned. What cannot be read of a run is left out.

    Args:
        study: its directory.
        runs: all of them.
        random_means: of each game, what a run that failed counts with from there on.
    """
    rows = {run.directory: _metrics(study / run.directory) for run in runs}
    done = [run.directory for run in runs if run.state == "done"]
    by_evaluations = bool(done) and all(
        len(_points(rows[directory], EVALUATION)[0]) >= LEAST_EVALUATIONS for directory in done
    )
    key = EVALUATION if by_evaluations else TRAINING_RETURN
    curves: dict[str, dict[str, tuple[RunCurve, ...]]] = {}
    for run in runs:
        failed = run.state == "failed"
        curve = RunCurve(
            run.seed,
            *_points(rows[run.directory], key),
            ended=failed or run.state == "done",
            failed_as=random_means.get(run.game) if failed else None,
        )
        of_game = curves.setdefault(run.game, {})
        of_game[run.arm] = (*of_game.get(run.arm, ()), curve)
    if by_evaluations:
        return StudyCurves(curves, "the evaluations on the way")
    told = f"the last {WINDOW} games played while learning"
    share = max((_window_share(rows[directory]) for directory in done), default=0.0)
    if share > LAGGING:
        told += f" (up to {share:.0%} of a training, so that curves lag behind their agents)"
    return StudyCurves(curves, told)


def transfer_threshold(scale: Scale, control: np.ndarray) -> float:
    """The normalised score whose time is told: half of the human's.

    Without a human's, half of what the control ends with, or 1 where that is nothing.
    """
    if scale.human:
        return HALFWAY
    mean = float(control.mean())
    return mean / 2 if mean > 0 else 1.0


def transfer_rows(
    curves: GameCurves,
    runs: Sequence[RunResult],
    scale: Scale,
    arms: Sequence[str],
    control: str,
    threshold: float,
    pretraining: Mapping[str, Pretraining],
) -> list[Transfer]:
    """What each arm gained, by agent steps and by wall time, without and with its pretraining.

    Args:
        curves: of every run, all of which have ended.
        runs: all of them.
        scale: the scores are normalised by.
        arms: to be compared with the control.
        control: the arm without transfer.
        threshold: normalised score whose time is told.
        pretraining: what the encoders of arms that were given weights had cost.
    """
    told = []
    for arm in arms:
        before = pretraining.get(arm)
        ways: list[tuple[str, str, float | None]] = [("agent steps", "steps", 0.0)]
        ways += [("steps with pretraining", "steps", before.steps)] if before else []
        ways += [("wall time", "seconds", 0.0)]
        ways += [("wall time with pretraining", "seconds", before.seconds)] if before else []
        for spent, unit, cost in ways:
            if cost is None:
                told.append(Transfer(arm, spent, unit, None, "not known"))
                continue
            try:
                steps = {
                    game: _shared_steps(of_game, arm, control) for game, of_game in curves.items()
                }
                treatment, other = (
                    {
                        game: _normalised(curves, runs, scale, game, each, unit, steps[game])
                        for game in curves
                    }
                    for each in (arm, control)
                )
                metrics = transfer_metrics(treatment, other, threshold, pretraining=cost)
            except UserError as error:
                told.append(Transfer(arm, spent, unit, None, str(error)))
                continue
            told.append(Transfer(arm, spent, unit, metrics))
    return told


def _shared_steps(
    of_game: Mapping[str, tuple[RunCurve, ...]], arm: str, control: str
) -> FloatArray:
    """Steps at which all runs of both arms say something, so that both begin and end there.

    Of an arm whose runs all failed the other's steps are those it is judged at.
    """
    for each in (arm, control):
        if any(curve.first == math.inf for curve in of_game[each]):
            raise UserError(f"{each} has a run without a learning curve")
    steps = common_steps([*of_game[arm], *of_game[control]])
    if not len(steps):
        raise UserError("there is no step at which all runs of both arms have been judged")
    return steps


def _normalised(
    curves: GameCurves,
    runs: Sequence[RunResult],
    scale: Scale,
    game: str,
    arm: str,
    unit: str,
    steps: FloatArray,
) -> Curves:
    """The curves of an arm in a game at ``steps``, over steps or over the seconds they took."""
    mine = [run for run in runs if (run.game, run.arm) == (game, arm)]
    returns = np.stack([curve.at(steps) for curve in curves[game][arm]])
    scores = scale.normalise(returns[..., None], [game])[..., 0]
    spent = np.broadcast_to(steps, scores.shape)
    if unit == "seconds":
        spent = spent * _seconds_per_step(mine)[:, None]
    return Curves.of(spent, scores, f"{arm} in {game}")


def _seconds_per_step(runs: Sequence[RunResult]) -> np.ndarray:
    """Of each run; of one that failed, what the others of its arm took."""
    rates = [
        run.wall_seconds / run.steps if run.wall_seconds and run.steps else math.nan for run in runs
    ]
    if all(map(math.isnan, rates)):
        raise UserError(f"no run of {runs[0].arm} in {runs[0].game} tells how long it took")
    return np.where(np.isnan(rates), np.nanmean(rates), rates)


def _metrics(run_dir: Path) -> list[dict[str, Any]]:
    try:
        return RunDirectory.open(run_dir).metrics()
    except UserError:
        # Not begun, or damaged: its state and reason are told elsewhere.
        return []


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of what was logged under a key; of two values at one step the later."""
    found = {
        row["step"]: float(row[key])
        for row in rows
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    }
    steps = sorted(found)
    return np.array(steps, dtype=float), np.array([found[step] for step in steps], dtype=float)


def _window_share(rows: Sequence[Mapping[str, Any]]) -> float:
    """How much of a finished training the games last that its final return is the mean of."""
    _, lengths = _points(rows, GAME_LENGTH)
    if not len(lengths):
        return 0.0
    return float(min(1.0, WINDOW * lengths[-1] / max(row["step"] for row in rows)))
