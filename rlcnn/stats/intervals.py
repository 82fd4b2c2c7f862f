"""The interval of the difference between two arms, from which a verdict follows.

:mod:`rlcnn.stats.calibration` compares it with others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from rlcnn.stats.checks import FloatArray, check_arm, check_confidence, check_pair


@dataclass(frozen=True)
class Difference:
    """An interval of the difference, treatment minus control, of mean scores.

    Attributes:
        point: difference of the means over runs and games.
        low: lower end; minus infinity if all runs of each arm are equal.
        high: upper end; infinity if all runs of each arm are equal.
        confidence: nominal coverage, such as 0.95.
        error: standard error.
        freedom: degrees of freedom of Student's t; 0 if all runs of each arm are equal.
    """

    point: float
    low: float
    high: float
    confidence: float
    error: float
    freedom: float

    @property
    def side(self) -> int:
        """1 if the whole interval is above zero, -1 if it is below, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def smallest_detectable(self, power: float = 0.8) -> float:
        """The true difference that an interval of this width finds with probability ``power``.

        To find it, the interval must exclude zero on the right side. By the noncentral t
        distribution (Cohen 1988, section 2.5) with the observed spread; infinite without spread.
        """
        check_confidence(power)
        if self.freedom == 0:
            return math.inf
        critical = special.stdtrit(self.freedom, 0.5 + self.confidence / 2)
        return float(special.nctdtrinc(self.freedom, 1 - power, critical) * self.error)


class Ratio(NamedTuple):
    """A ratio of two means, and the ends of its interval."""

    point: float
    low: float
    high: float


def difference_interval(
    treatment: ArrayLike, control: ArrayLike, confidence: float = 0.95
) -> Difference:
    """The difference of two arms' mean scores, stratified by game, with a cautious t interval.

    The difference is the mean over games of the differences of means over runs. Its variance is the
    sum over games of ``2 s^2 / n``, divided by the squared number of games. ``s^2`` is the *larger*
    of the two arms' sample variances in that game, and ``n`` the *smaller* of their numbers of
    runs; degrees of freedom are Welch's (1947) and Satterthwaite's (1946). Welch's interval uses
    each arm's own variance and number. With skewed scores, or runs that fail or do not learn, the
    arm with little spread is often one whose rare outcome is not in the sample, and more runs of
    the other arm do not change that.

    Scores are (runs, games), of the same games; the numbers of runs, at least 2, may differ.

    Raises:
        UserError: scores that cannot be compared, or an invalid confidence.
    """
    check_confidence(confidence)
    pair = {"treatment": treatment, "control": control}
    point, error, freedom = t_parts(*check_pair(pair, "treatment", "control"))
    reach = t_reach(error, freedom, confidence)
    low, high = float(point - reach), float(point + reach)
    return Difference(float(point), low, high, confidence, float(error), float(freedom))


def t_parts(
    treatment: FloatArray, control: FloatArray, larger_variance: bool = True
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Difference, standard error and degrees of freedom of scores (..., runs, games).

    Leading axes hold any number of studies. With ``larger_variance`` both arms use the larger
    variance and the smaller number of runs, as in :func:`difference_interval`; without it, this is
    Welch's interval.
    """
    counts, games = (treatment.shape[-2], control.shape[-2]), treatment.shape[-1]
    # Equal scores differ from their mean by rounding.
    variances = [
        np.where(np.ptp(scores, axis=-2) == 0, 0.0, scores.var(axis=-2, ddof=1))
        for scores in (treatment, control)
    ]
    if larger_variance:
        variances = [np.maximum(*variances)] * 2
        counts = min(counts), min(counts)
    parts = [variance / count / games**2 for variance, count in zip(variances, counts, strict=True)]
    squared_error = (parts[0] + parts[1]).sum(axis=-1)
    spread = (parts[0] ** 2 / (counts[0] - 1) + parts[1] ** 2 / (counts[1] - 1)).sum(axis=-1)
    freedom = np.divide(
        squared_error**2, spread, out=np.zeros_like(squared_error), where=spread > 0
    )
    point = (treatment.mean(axis=-2) - control.mean(axis=-2)).mean(axis=-1)
    return point, np.sqrt(squared_error), freedom


def t_reach(error: FloatArray, freedom: FloatArray, confidence: float) -> FloatArray:
    """Half the width of t intervals; infinite where the spread is unknown."""
    known = freedom > 0
    quantile = special.stdtrit(np.where(known, freedom, 1.0), 0.5 + confidence / 2)
    return np.where(known, quantile * error, np.inf)


def ratio_interval(
    treatment: ArrayLike, control: ArrayLike, confidence: float = 0.95
) -> Ratio | None:
    """The ratio of two arms' mean scores with Fieller's interval (1954).

    Arguments and errors are those of :func:`difference_interval`.

    Returns:
        None if the control's mean is not clearly different from zero, so that the ratio has no
        finite interval.
    """
    difference = difference_interval(treatment, control, confidence)
    top, bottom = (float(check_arm("", scores).mean()) for scores in (treatment, control))
    # Both arms have the same variance and the same number of runs in the difference's. Its
    # interval is infinite if all runs of each arm are equal.
    squared_reach = ((difference.high - difference.low) / 2) ** 2 / 2
    a = bottom**2 - squared_reach
    if a <= 0:
        return None
    b, c = top * bottom, top**2 - squared_reach
    # Real wherever ``a`` is positive (Fieller 1954).
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Ratio(top / bottom, (b - root) / a, (b + root) / a)
