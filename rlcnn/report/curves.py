"""Learning curves of several runs, and their mean with an interval at each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlcnn.stats.checks import FloatArray
from rlcnn.stats.intervals import t_reach

# A figure shows no more detail.
MOST_POINTS = 160

# Nominal coverage of the interval at each single step.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class RunCurve:
    """The returns of one run at increasing agent steps, both (points,).

    Attributes:
        ended: whether the run is done or failed.
        failed_as: the return that a failed run counts with after its last point; else None.
    """

    seed: int
    steps: FloatArray
    returns: FloatArray
    ended: bool = True
    failed_as: float | None = None

    @property
    def last(self) -> float:
        """The last step with a value; infinite for a failed run."""
        if self.failed_as is not None:
            return math.inf
        return float(self.steps[-1]) if len(self.steps) else -math.inf

    @property
    def first(self) -> float:
        """The first step with a value; minus infinity for a run that failed at once."""
        if len(self.steps):
            return float(self.steps[0])
        return -math.inf if self.failed_as is not None else math.inf

    def at(self, steps: ArrayLike) -> FloatArray:
        """Returns at ``steps``, by linear interpolation."""
        places = np.asarray(steps, dtype=float)
        beyond = math.nan if self.failed_as is None else self.failed_as
        if not len(self.steps):
            return np.full(places.shape, beyond)
        right = None if self.failed_as is None else beyond
        return np.interp(places, self.steps, self.returns, right=right)


@dataclass(frozen=True)
class MeanCurve:
    """The mean of ``runs`` runs at ``steps``, with the ends of a t interval, each (points,).

    The ends are NaN for a single run.
    """

    steps: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    runs: int


def common_steps(
    curves: Sequence[RunCurve], most: int = MOST_POINTS, until: float = math.inf
) -> FloatArray:
    """Steps at which all runs have a value: those at which any was measured, thinned out evenly.

    There are at most ``most``, none beyond ``until``. ``curves`` are of runs that ended. If all
    failed, the steps go on to ``until``, if that is finite.
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


def mean_curve(curves: Sequence[RunCurve], until: float = math.inf) -> MeanCurve | None:
    """The mean over an arm's runs in a game that ended, at the steps at which all have a value.

    A failed run is part of the mean, with its ``failed_as``. No step is beyond ``until``.

    Returns:
        None if there is no such step.
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
    reach = t_reach(error, np.full(len(steps), runs - 1.0), CONFIDENCE)
    return MeanCurve(steps, mean, mean - reach, mean + reach, runs)
