"""What a search optimises, computed from the files of a trial's run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agents.config import TrainConfig
from agents.study.curves import GAME_LENGTH, LEAST_EVALUATIONS, TRAINING_RETURN, points, run_metrics
from agents.train.training import EVALUATION
from envs.errors import UserError, nearest
from rlcnn.report.style import duration, number
from rlcnn.stats.checks import FloatArray

Kind = Literal["score", "area", "seconds-to"]
FORMS = "score, area or seconds-to:SCORE"

NEVER = 1e9
"""Seconds of a trial that never reached the score; what it lacks to the score is added."""

RUNGS = 20
"""A trial is compared with others at each twentieth of its steps."""

FIRST_SECONDS, SECONDS_FACTOR = 15.0, 1.25
"""Where seconds count, trials are compared after 15 seconds and each time a quarter later."""


LEAST_GAMES = 20
"""Training games before their mean return counts as reaching a score: a few may be lucky."""


@dataclass(frozen=True)
class Curve:
    """A learning curve: at each point (points,) agent steps, return, wall seconds and games.

    ``games`` are the training games by then, about; infinite for evaluations.
    """

    steps: FloatArray
    returns: FloatArray
    seconds: FloatArray
    games: FloatArray

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], key: str) -> Curve:
        """The curve under ``key`` in the metrics of a run."""
        steps, returns = points(rows, key)
        timed, seconds = points(rows, "time/wall_seconds")
        times = np.interp(steps, timed, seconds) if len(timed) else np.full(len(steps), math.nan)
        games = np.full(len(steps), math.inf)
        if key == TRAINING_RETURN:
            measured, lengths = points(rows, GAME_LENGTH)
            games = (
                steps / np.interp(steps, measured, lengths)
                if len(measured)
                else np.zeros(len(steps))
            )
        return cls(steps, returns, times, games)

    def area(self, until: float) -> float:
        """The mean height up to ``until`` steps; before the first point that of the first."""
        inside = self.steps[(self.steps > 0) & (self.steps < until)]
        places = np.concatenate([[0.0], inside, [until]])
        heights = np.interp(places, self.steps, self.returns)
        return float(np.diff(places) @ (heights[1:] + heights[:-1]) / 2 / until)

    def seconds_to(self, target: float) -> float:
        """Wall seconds to the first point at or above ``target``; infinite if there is none."""
        reached = np.flatnonzero((self.returns >= target) & (self.games >= LEAST_GAMES))
        return float(self.seconds[reached[0]]) if len(reached) else math.inf


@dataclass(frozen=True)
class Objective:
    """The value of a trial that a search optimises.

    Attributes:
        kind: "score", mean return of the final evaluation; "area", mean return over the learning
            curve; "seconds-to", wall seconds until the curve reaches ``target``.
        target: a return.
    """

    kind: Kind
    target: float = math.nan

    @property
    def text(self) -> str:
        """The objective as :func:`parse_objective` reads it."""
        return f"{self.kind}:{self.target:g}" if self.kind == "seconds-to" else self.kind

    @property
    def title(self) -> str:
        """The objective for people."""
        return {
            "score": "mean return of the final evaluation",
            "area": "mean return over the learning curve",
            "seconds-to": f"wall seconds to a mean return of {number(self.target)}",
        }[self.kind]

    @property
    def label(self) -> str:
        """The objective in few words, for the axis of a figure."""
        return {"score": "mean return", "area": "mean of the curve", "seconds-to": "seconds"}[
            self.kind
        ]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """As Optuna names it."""
        return "minimize" if self.kind == "seconds-to" else "maximize"

    @property
    def sign(self) -> int:
        """1 if greater values are better, -1 if smaller ones are."""
        return -1 if self.kind == "seconds-to" else 1

    def written(self, value: float | None) -> str:
        """A value for people."""
        if value is None:
            return "-"
        if self.kind != "seconds-to":
            return number(value)
        return duration(value) if value < NEVER else f"not reached ({number(self.best(value))})"

    def best(self, value: float) -> float:
        """The best return of a trial that never reached the target, from its value."""
        return self.target - (value - NEVER)

    def curve(self, run_dir: Path, config: TrainConfig) -> Curve:
        """The learning curve of a run, perhaps in progress."""
        return Curve.of(run_metrics(run_dir), curve_key(config))

    def reached(self, curve: Curve) -> bool:
        """Whether the value is known, though the training goes on."""
        return self.kind == "seconds-to" and curve.seconds_to(self.target) < math.inf

    def value(self, curve: Curve, score: float | None, steps: int) -> float:
        """The value of a run.

        Args:
            curve: its learning curve.
            score: mean return of its final evaluation; None if it was stopped before.
            steps: agent steps that it was to take.

        Raises:
            UserError: the run has no such value.
        """
        if self.kind == "score":
            if score is None:
                raise UserError("it has no final evaluation")
            return score
        if not len(curve.steps):
            raise UserError("it has no learning curve: no game ended before the training did")
        if self.kind == "area":
            return curve.area(steps)
        seconds = curve.seconds_to(self.target)
        if math.isnan(seconds):
            raise UserError("its metrics hold no wall seconds")
        if seconds < math.inf:
            return seconds
        # A few lucky games may have had more than the target.
        return NEVER + max(0.0, self.target - float(curve.returns.max()))

    def interim(self, curve: Curve, steps: int) -> dict[int, float]:
        """What a run in progress has shown by each rung that it passed, greater or smaller as
        values are; runs are compared at equal rungs.

        Rungs are shares of the steps or, where seconds count, times.
        """
        if not len(curve.steps):
            return {}
        if self.kind == "seconds-to":
            rungs = itertools.takewhile(
                lambda pair: pair[1] <= curve.seconds[-1],
                enumerate(FIRST_SECONDS * SECONDS_FACTOR**power for power in itertools.count()),
            )
            # Smaller is better, as for seconds.
            return {
                rung: -float(np.interp(time, curve.seconds, curve.returns)) for rung, time in rungs
            }
        found = {}
        for rung in range(1, RUNGS):
            place = steps * rung / RUNGS
            if place > curve.steps[-1]:
                break
            at_place = float(np.interp(place, curve.steps, curve.returns))
            found[rung] = at_place if self.kind == "score" else curve.area(place)
        return found


def parse_objective(text: str) -> Objective:
    """Reads an objective: score, area or seconds-to:SCORE.

    Raises:
        UserError: it is none of these.
    """
    kind, _, target = text.partition(":")
    if text == "score":
        return Objective("score")
    if text == "area":
        return Objective("area")
    if kind == "seconds-to":
        try:
            value = float(target)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return Objective("seconds-to", value)
        raise UserError(f'--objective "{text}": expected a score, such as seconds-to:18')
    hint = nearest(kind, ("score", "area", "seconds-to:18"))
    raise UserError(f'--objective "{text}" is unknown: expected {FORMS}.{hint}')


def curve_key(config: TrainConfig) -> str:
    """The metric of the learning curve: evaluations if there are enough of them during a training.

    Otherwise it is the mean return of the last 100 training games.
    """
    evaluations = config.total_steps // config.eval_every if config.eval_every else 0
    return EVALUATION if evaluations >= LEAST_EVALUATIONS else TRAINING_RETURN
