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
    """A figure, or an array of them, with its interval.

    Attributes:
        point: of the given scores.
        low: lower end of the interval.
        high: upper end.
        confidence: nominal coverage.
    """

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

    Args:
        treatment: (runs, games).
        control: (runs, games); the number of runs may differ.
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

    Runs are drawn with replacement within each game. The same seed gives the same intervals; those
    of an arm do not depend on the other arms.

    Args:
        scores: arm -> (runs, games), at least 2 runs.
        aggregate: such as :func:`aggregate_iqm`; may return an array of figures.
        reps: bootstrap samples.
        confidence: nominal coverage.
        seed: of the samples.

    Raises:
        UserError: invalid scores, ``reps`` or ``confidence``.
    """
    _check_options(reps, confidence)
    estimates = {}
    for arm, array in check_scores(scores, least_runs=2).items():
        rng = _generator(seed, arm)
        drawn = np.array([aggregate(_resample(array, rng)) for _ in range(reps)])
        estimates[arm] = _percentiles(aggregate(array), drawn, confidence)
    return estimates


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

    Args:
        scores: arm -> (runs, games); arms are resampled independently, stratified by game.
        treatment: the arm whose scores are the statistic's first argument.
        control: the second.
        statistic: of two arrays (runs, games); may return an array of figures.
        reps: bootstrap samples.
        confidence: nominal coverage.
        seed: of the samples.

    Raises:
        UserError: invalid scores, arms, ``reps`` or ``confidence``.
    """
    _check_options(reps, confidence)
    first, second = check_pair(scores, treatment, control)
    rngs = _generator(seed, treatment), _generator(seed, control)
    drawn = np.array(
        [statistic(_resample(first, rngs[0]), _resample(second, rngs[1])) for _ in range(reps)]
    )
    return _percentiles(statistic(first, second), drawn, confidence)


def difference_estimate(
    scores: Scores,
    treatment: str,
    control: str,
    aggregate: Aggregate,
    *,
    reps: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The difference of two arms' aggregates, treatment minus control, with its interval.

    This interval may exclude zero although the two arms' own intervals overlap. Arguments are those
    of :func:`pair_estimate`, with an aggregate for the statistic.

    Raises:
        UserError: as :func:`pair_estimate`.
    """
    return pair_estimate(
        scores,
        treatment,
        control,
        lambda first, second: np.asarray(aggregate(first)) - np.asarray(aggregate(second)),
        reps=reps,
        confidence=confidence,
        seed=seed,
    )


def performance_profile(thresholds: ArrayLike, of_means: bool = False) -> Aggregate:
    """The share of scores above each threshold, as an aggregate.

    Args:
        thresholds: normalised scores, (thresholds,).
        of_means: count the games' means over runs instead of single runs.

    Returns:
        A function of scores (runs, games) that gives shares, (thresholds,).
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


def _resample(scores: FloatArray, rng: np.random.Generator) -> FloatArray:
    runs = len(scores)
    return np.take_along_axis(scores, rng.integers(runs, size=scores.shape), axis=0)


def _percentiles(point: Any, drawn: FloatArray, confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return Estimate(np.asarray(point, dtype=float), low, high, confidence)


def _generator(seed: int, arm: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(arm.encode())])


def _check_options(reps: int, confidence: float) -> None:
    check_confidence(confidence)
    if reps < 1:
        raise UserError(f"{reps} bootstrap samples give no interval: expected at least 1")
