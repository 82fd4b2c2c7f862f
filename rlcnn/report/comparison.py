"""The statistics of a study that its page shows in figures and tables, computed once for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlcnn.stats import (
    AGGREGATES,
    Estimate,
    interval_estimates,
    pair_estimate,
    performance_profile,
    probability_of_improvement,
)
from rlcnn.stats.checks import FloatArray, Scores, check_scores

PROFILE_POINTS = 101
OPTIMALITY_GAP = "optimality gap"


@dataclass(frozen=True)
class Comparison:
    """Aggregates of normalised scores with bootstrap intervals, which describe and do not judge.

    Attributes:
        scores: arm -> (runs, games).
        aggregates: name of the aggregate -> arm -> estimate.
        thresholds: of the profiles, (points,).
        profiles: arm -> share of runs above each threshold, (points,).
        improvement: each arm but the control -> how probably one of its runs beats one of the
            control's.
    """

    scores: Mapping[str, FloatArray]
    aggregates: Mapping[str, Mapping[str, Estimate]]
    thresholds: FloatArray
    profiles: Mapping[str, Estimate]
    improvement: Mapping[str, Estimate]


def compare(
    scores: Scores, control: str, *, human: bool, reps: int = 2_000, seed: int = 0
) -> Comparison:
    """Computes all of them.

    Args:
        scores: arm -> (runs, games), normalised.
        control: the arm that the others are compared with.
        human: whether 1 is the human's score; the optimality gap, the distance to it, means nothing
            otherwise and is left out.
        reps: bootstrap samples of each estimate.
        seed: of the samples.

    Raises:
        UserError: scores that are not valid, or fewer than 2 runs of an arm.
    """
    arrays = check_scores(scores, least_runs=2)
    everything = np.concatenate([array.ravel() for array in arrays.values()])
    low, high = min(0.0, everything.min()), max(1.0, everything.max())
    thresholds = np.linspace(low, high, PROFILE_POINTS)
    return Comparison(
        scores=arrays,
        aggregates={
            name: interval_estimates(arrays, aggregate, reps=reps, seed=seed)
            for name, aggregate in AGGREGATES.items()
            if human or name != OPTIMALITY_GAP
        },
        thresholds=thresholds,
        profiles=interval_estimates(arrays, performance_profile(thresholds), reps=reps, seed=seed),
        improvement={
            arm: pair_estimate(
                arrays, arm, control, probability_of_improvement, reps=reps, seed=seed
            )
            for arm in arrays
            if arm != control
        },
    )
