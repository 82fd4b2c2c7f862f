"""Rank correlation of few pairs, such as an arm's probe and what its agents reach."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from envs.errors import UserError

LEAST_PAIRS = 4


class RankCorrelation(NamedTuple):
    """Spearman's rho of pairs, -1 to 1, and its interval of 95%."""

    rho: float
    interval: tuple[float, float]
    pairs: int

    def __str__(self) -> str:
        """``Spearman's rho +0.60 (95% interval -0.73 to +0.98) of 5 arms``."""
        lower, upper = self.interval
        return (
            f"Spearman's rho {self.rho:+.2f} (95% interval {lower:+.2f} to {upper:+.2f}) of"
            f" {self.pairs} arms"
        )


def rank_correlation(first: ArrayLike, second: ArrayLike) -> RankCorrelation:
    """Spearman's rho of pairs, (pairs,) each; equal values have their mean rank.

    The interval is Fisher's z with the variance of Bonett & Wright 2000 ("Sample size requirements
    for estimating Pearson, Kendall and Spearman correlations"), (1 + rho^2 / 2) / (pairs - 3). It
    would be a point for pairs in perfect order; then the interval ends there, and its other end is
    that of two neighbouring ranks exchanged, rho = 1 - 12 / (pairs^3 - pairs).

    Raises:
        UserError: there are fewer than 4 pairs, values are not finite, or all values of one kind
            are equal.
    """
    pairs = np.array([first, second], dtype=np.float64)
    count = pairs.shape[1]
    if count < LEAST_PAIRS:
        raise UserError(f"a rank correlation needs at least {LEAST_PAIRS} arms, not {count}")
    if not np.isfinite(pairs).all():
        raise UserError("a rank correlation needs finite numbers")
    if (pairs == pairs[:, :1]).all(axis=1).any():
        raise UserError("a rank correlation needs different values: all of one kind are equal")
    ranks = [stats.rankdata(values) for values in pairs]
    rho = max(-1.0, min(1.0, float(np.corrcoef(ranks)[0, 1])))
    most = 1 - 12 / (count**3 - count)
    inner = max(-most, min(most, rho))
    reach = NormalDist().inv_cdf(0.975) * math.sqrt((1 + inner**2 / 2) / (count - 3))
    lower, upper = (math.tanh(math.atanh(inner) + way * reach) for way in (-1, 1))
    return RankCorrelation(
        rho, (-1.0 if rho < -most else lower, 1.0 if rho > most else upper), count
    )
