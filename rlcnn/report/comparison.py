"""Statistics of a study, computed once for the figures and tables of its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from rlcnn.stats import (
    AGGREGATES,
    Estimate,
    difference_estimate,
    interval_estimates,
    pair_estimate,
    performance_profile,
    probability_of_improvement,
)
from rlcnn.stats.aggregate import Aggregate
from rlcnn.stats.checks import FloatArray, Scores, check_scores

PROFILE_POINTS = 101
OPTIMALITY_GAP = "optimality gap"


@dataclass(frozen=True)
class Comparison:
    """Aggregates of normalised scores with bootstrap intervals; verdicts do not use them.

    Attributes:
        scores: arm -> (runs, games).
        aggregates: name of the aggregate -> arm -> estimate.
        differences: name of the aggregate -> each other arm -> its aggregate minus the control's.
        thresholds: of the profiles, (points,).
        profiles: arm -> share of runs above each threshold, (points,).
        profile_differences: each other arm -> its profile minus the control's, (points,).
        improvement: each other arm -> probability that one of its runs beats one of the control's.
    """

    scores: Mapping[str, FloatArray]
    aggregates: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Estimate]]
    thresholds: FloatArray
    profiles: Mapping[str, Estimate]
    profile_differences: Mapping[str, Estimate]
    improvement: Mapping[str, Estimate]


def compare(scores: Scores, control: str, *, human: bool, reps: int = 2_000) -> Comparison:
    """Computes all statistics of normalised scores, arm -> (runs, games).

    Without ``human``, where 1 is the human's score, the optimality gap, the distance to that score,
    has no meaning and is left out. ``reps`` are the bootstrap samples of each estimate.

    Raises:
        UserError: invalid scores, or fewer than 2 runs of an arm.
    """
    arrays = check_scores(scores, least_runs=2)
    everything = [0.0, 1.0, *(score for array in arrays.values() for score in array.flat)]
    thresholds = np.linspace(min(everything), max(everything), PROFILE_POINTS)
    profile = performance_profile(thresholds)
    shown = {name: each for name, each in AGGREGATES.items() if human or name != OPTIMALITY_GAP}
    others = [arm for arm in arrays if arm != control]

    estimated = partial(interval_estimates, arrays, reps=reps)

    def differing(aggregate: Aggregate) -> dict[str, Estimate]:
        return {
            arm: difference_estimate(arrays, arm, control, aggregate, reps=reps) for arm in others
        }

    return Comparison(
        scores=arrays,
        aggregates={name: estimated(aggregate) for name, aggregate in shown.items()},
        differences={name: differing(aggregate) for name, aggregate in shown.items()},
        thresholds=thresholds,
        profiles=estimated(profile),
        profile_differences=differing(profile),
        improvement={
            arm: pair_estimate(arrays, arm, control, probability_of_improvement, reps=reps)
            for arm in others
        },
    )
