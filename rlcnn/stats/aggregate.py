"""Aggregates of scores over runs and games, with stratified bootstrap intervals.

Names and definitions are those of rliable (Agarwal et al. 2021, "Deep reinforcement learning at
the edge of the statistical precipice"). Their intervals are percentile bootstraps, which cover less
than their nominal confidence with few runs (:mod:`rlcnn.stats.calibration`); verdicts therefore use
:func:`rlcnn.stats.intervals.difference_interval`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import UserError
from rlcnn.stats.checks import FloatArray, Scores, check_confidence, check_pair, check_scores

Aggregate = Callable[[FloatArray], Any]
"""Scores (runs, games) -> a number or an array."""


@dataclass(frozen=True)
class Estimate:
    """A figure, or an array of them, with the ends of its interval of nominal ``confidence``."""

    point: FloatArray
    low: FloatArray
    high: FloatArray
    confidence: float


def aggregate_mean(scores: FloatArray) -> NDArray[Any]:
    """Mean over runs and games of scores (..., runs, games) -> (...)."""
    return np.asarray(scores).mean(axis=(-2, -1))


def aggregate_median(scores: FloatArray) -> NDArray[Any]:
    """Median over games of the means over runs, of scores (..., runs, games) -> (...)."""
    return np.median(np.asarray(scores).mean(axis=-2), axis=-1)


def aggregate_iqm(scores: FloatArray) -> NDArray[Any]:
    """Interquartile mean of scores (..., runs, games) -> (...).

    The mean over runs and games without the lowest and the highest quarter of the scores, rounded
    down to whole scores. With 3 scores nothing is left out.
    """
    scores = np.asarray(scores)
    pooled = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = pooled.shape[-1] // 4
    return pooled[..., cut : pooled.shape[-1] - cut].mean(axis=-1)


def aggregate_optimality_gap(scores: FloatArray, gamma: float = 1.0) -> NDArray[Any]:
    """Mean distance of scores (..., runs, games) below ``gamma`` -> (...)."""
    return gamma - np.minimum(scores, gamma).mean(axis=(-2, -1))


def probability_of_improvement(treatment: FloatArray, control: FloatArray) -> float:
    """Probability that a run of the treatment beats one of the control in the same game.

    Mean over games of the Mann-Whitney statistic divided by the number of pairs; ties count half.
    Both are (runs, games); the numbers of runs may differ.
    """
    above = treatment[:, None] > control[None]
    equal = treatment[:, None] == control[None]
    return float((above + 0.5 * equal).mean())


def interval_estimates(
    scores: Scores,
    aggregate: Aggregate,
    *,
    reps: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Each arm's aggregate with a stratified percentile bootstrap interval.

    Runs are drawn with replacement within each game, ``reps`` times. The same seed gives the same
    intervals; those of an arm do not depend on the other arms. ``scores`` are arm -> (runs, games),
    at least 2 runs; the aggregate, such as :func:`aggregate_iqm`, may return an array of figures.

    Raises:
        UserError: invalid scores, ``reps`` or ``confidence``.
    """
    return {
        arm: _bootstrap({arm: array}, aggregate, reps, confidence, seed)
        for arm, array in check_scores(scores, least_runs=2).items()
    }


def pair_estimate(
    scores: Scores,
    treatment: str,
    control: str,
    statistic: Callable[[FloatArray, FloatArray], Any],
    *,
    reps: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic of two arms, such as :func:`probability_of_improvement`, with its interval.

    The statistic takes the treatment's scores (runs, games), then the control's, and may return an
    array of figures. Arms are resampled independently. Options and errors are those of
    :func:`interval_estimates`; an unknown arm is an error, too.
    """
    first, second = check_pair(scores, treatment, control)
    arms = {treatment: first, control: second}
    return _bootstrap(arms, statistic, reps, confidence, seed)


def difference_estimate(
    scores: Scores, treatment: str, control: str, aggregate: Aggregate, **options: Any
) -> Estimate:
    """The difference of two arms' aggregates, treatment minus control, with its interval.

    This interval may exclude zero although the two arms' own intervals overlap. ``options`` are
    those of :func:`pair_estimate`, which it uses.
    """

    def difference(first: FloatArray, second: FloatArray) -> Any:
        return np.asarray(aggregate(first)) - np.asarray(aggregate(second))

    return pair_estimate(scores, treatment, control, difference, **options)


def performance_profile(thresholds: ArrayLike, of_means: bool = False) -> Aggregate:
    """The share of scores above each threshold, as an aggregate.

    Args:
        thresholds: normalised scores, (thresholds,).
        of_means: count the games' means over runs instead of single runs.
    """
    levels = np.asarray(thresholds, dtype=float)

    def profile(scores: FloatArray) -> FloatArray:
        counted = scores.mean(axis=0) if of_means else scores
        return (counted.ravel()[:, None] > levels).mean(axis=0)

    return profile


AGGREGATES: Mapping[str, Aggregate] = {
    "IQM": aggregate_iqm,
    "mean": aggregate_mean,
    "median": aggregate_median,
    "optimality gap": aggregate_optimality_gap,
}
"""Aggregates by their names in tables."""


def _bootstrap(
    arms: Mapping[str, FloatArray],
    statistic: Callable[..., Any],
    reps: int,
    confidence: float,
    seed: int,
) -> Estimate:
    check_confidence(confidence)
    if reps < 1:
        raise UserError(f"{reps} bootstrap samples give no interval: expected at least 1")
    rngs = [np.random.default_rng([seed, zlib.crc32(arm.encode())]) for arm in arms]

    def resample(scores: FloatArray, rng: np.random.Generator) -> FloatArray:
        return np.take_along_axis(scores, rng.integers(len(scores), size=scores.shape), axis=0)

    drawn = [statistic(*map(resample, arms.values(), rngs)) for _ in range(reps)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return Estimate(np.asarray(statistic(*arms.values()), dtype=float), low, high, confidence)
