"""Statistics of few runs: normalised scores, aggregates, differences with intervals, verdicts."""

from rlcnn.stats.accuracy import (
    clustered_gain_interval,
    clustered_interval,
    paired_interval,
    wilson_interval,
)
from rlcnn.stats.aggregate import (
    AGGREGATES,
    Estimate,
    aggregate_iqm,
    aggregate_mean,
    aggregate_median,
    aggregate_optimality_gap,
    difference_estimate,
    interval_estimates,
    pair_estimate,
    performance_profile,
    probability_of_improvement,
)
from rlcnn.stats.calibration import load_calibration
from rlcnn.stats.intervals import Difference, Ratio, difference_interval, ratio_interval
from rlcnn.stats.permutation import permutation_p, smallest_p
from rlcnn.stats.rank_correlation import RankCorrelation, rank_correlation
from rlcnn.stats.scenarios import coverage_range, simulated_coverage
from rlcnn.stats.scores import ATARI57, RandomAgent, find_game, human_normalise, random_normalise
from rlcnn.stats.table import Result, ScoreTable, tabulate
from rlcnn.stats.transfer import Curves, TransferMetrics, both_budgets, transfer_metrics
from rlcnn.stats.verdict import Verdict, judge, learned_arms

__all__ = [
    "AGGREGATES",
    "ATARI57",
    "Curves",
    "Difference",
    "Estimate",
    "RandomAgent",
    "RankCorrelation",
    "Ratio",
    "Result",
    "ScoreTable",
    "TransferMetrics",
    "Verdict",
    "aggregate_iqm",
    "aggregate_mean",
    "aggregate_median",
    "aggregate_optimality_gap",
    "both_budgets",
    "clustered_gain_interval",
    "clustered_interval",
    "coverage_range",
    "difference_estimate",
    "difference_interval",
    "find_game",
    "human_normalise",
    "interval_estimates",
    "judge",
    "learned_arms",
    "load_calibration",
    "pair_estimate",
    "paired_interval",
    "performance_profile",
    "permutation_p",
    "probability_of_improvement",
    "random_normalise",
    "rank_correlation",
    "ratio_interval",
    "simulated_coverage",
    "smallest_p",
    "tabulate",
    "transfer_metrics",
    "wilson_interval",
]
