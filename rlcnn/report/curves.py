"""Learning curves of several runs: their mean, and how sure it is, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlcnn.stats.intervals import t_reach

FloatArray = NDArray[np.float64]

MOST_POINTS = 160
"""More points than these of a curve nobody sees in a figure."""


@dataclass(frozen=True)
class RunCurve:
    """One run's returns over its training.

    Attributes:
        seed: of the run.
        steps: agent steps, increasing, (points,).
        returns: at these steps, (points,).
        ended: whether it is done or failed, and not still to go on.
        failed_as: of a run that failed, the return that it counts with from its last point on; else
            None.
    """

    seed: int
    steps: FloatArray
    returns: FloatArray
    ended: bool = True
    failed_as: float | None = None

    @property
    def last(self) -> float:
        """The step up to which it says something: infinite for a run that failed."""
        if self.failed_as is not None:
            return math.inf
        return float(self.steps[-1]) if len(self.steps) else -math.inf

    @property
    def first(self) -> float:
        """The step from which on it says something: minus infinity for one that failed at once."""
        if len(self.steps):
            return float(self.steps[0])
        return -math.inf if self.failed_as is not None else math.inf

    def at(self, steps: ArrayLike) -> FloatArray:
        """Returns at ``steps``, between points along a straight line."""
        places = np.asarray(steps, dtype=float)
        if not len(self.steps):
            level = math.nan if self.failed_as is None else self.failed_as
            return np.full(places.shape, level)
        values = np.interp(places, self.steps, self.returns)
        if self.failed_as is not None:
            values = np.where(places > self.steps[-1], self.failed_as, values)
        return values


@dataclass(frozen=True)
class MeanCurve:
    """The mean of several runs, with a t interval at each step.

    Attributes:
        steps: (points,).
        mean: over runs, (points,).
        low: lower ends; NaN where a single run says nothing of how runs differ.
        high: upper ends, likewise.
        runs: how many are in the mean.
    """

    steps: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    runs: int


def common_steps(
    curves: Sequence[RunCurve], most: int = MOST_POINTS, until: float = math.inf
) -> FloatArray:
    """Steps at which all of some runs say something: where any of them was measured, or fewer.

    Where all of them failed, what they count with goes on to ``until``, if that is finite.

    Args:
        curves: of runs that ended.
        most: points; more than these are thinned out evenly.
        until: no step beyond it.
    """
    measured = [curve.steps for curve in curves if len(curve.steps)]
    if until < math.inf and all(curve.failed_as is not None for curve in curves):
        beyond = max(steps[-1] for steps in measured) + 1 if measured else 0.0
        measured.append(np.array([beyond, until]))
    if not measured:
        return np.zeros(0)
    start = max(curve.first for curve in curves)
    end = min(until, *(curve.last for curve in curves))
    steps = np.unique(np.concatenate(measured))
    steps = steps[(steps >= start) & (steps <= end)]
    if len(steps) > most:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]
    return steps


def mean_curve(
    curves: Sequence[RunCurve], until: float = math.inf, confidence: float = 0.95
) -> MeanCurve | None:
    """The mean over the runs that ended, from where all say something to where the first stops.

    A run that failed is part of it, by what it counts with.

    Args:
        curves: of one arm in one game.
        until: no step beyond it.
        confidence: nominal coverage of the interval at each step alone.

    Returns:
        None where there is no such step.
    """
    ended = [curve for curve in curves if curve.ended and curve.first < math.inf]
    steps = common_steps(ended, until=until) if ended else np.zeros(0)
    if not len(steps):
        return None
    values = np.stack([curve.at(steps) for curve in ended])
    runs, mean = len(values), values.mean(axis=0)
    if runs < 2:
        unknown = np.full(len(steps), math.nan)
        return MeanCurve(steps, mean, unknown, unknown, runs)
    error = values.std(axis=0, ddof=1) / math.sqrt(runs)
    reach = t_reach(error, np.full(len(steps), runs - 1.0), confidence)
    return MeanCurve(steps, mean, mean - reach, mean + reach, runs)
