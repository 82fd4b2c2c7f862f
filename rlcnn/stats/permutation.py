"""Exact tests of whether two arms differ at all, and the limits of such tests with few runs."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from rlcnn.stats.checks import FloatArray, check_pair
from rlcnn.stats.intervals import t_parts

_MOST_EXACT = 20_000
_BATCH = 2_000


def smallest_p(treatment_runs: int, control_runs: int, games: int = 1) -> float:
    """The smallest two-sided p-value that any permutation or rank test can give.

    Runs are exchanged within games, so there are ``binomial(n + m, n) ** games`` arrangements, and
    the most extreme one and its mirror image count: 0.10 with 3 and 3 runs of one game, 0.029 with
    4 and 4, 0.0079 with 5 and 5.
    """
    arrangements = math.comb(treatment_runs + control_runs, treatment_runs) ** games
    return min(1.0, 2 / arrangements)


def permutation_p(
    treatment: ArrayLike, control: ArrayLike, seed: int = 0, draws: int = 20_000
) -> float:
    """Two-sided p-value of Welch's t under exchange of runs between arms, within games.

    It is exact if the arms have the same distribution. If only their means are equal, it is nearly
    exact, because the statistic is studentised (Janssen 1997). With one game and at most 20,000
    arrangements it counts all of them; otherwise it draws ``draws`` (Phipson and Smyth 2010).
    Scores are (runs, games), at least 2 runs.

    Raises:
        UserError: scores that cannot be compared.
    """
    pair = {"treatment": treatment, "control": control}
    first, second = check_pair(pair, "treatment", "control")
    runs = len(first)
    pooled = np.concatenate([first, second])
    total, games = pooled.shape
    seen = _statistic(pooled[None], runs)[0]
    exact = games == 1 and math.comb(total, runs) <= _MOST_EXACT
    if exact:
        chosen = np.array(list(itertools.combinations(range(total), runs)))
        rest = np.array([np.setdiff1d(np.arange(total), row) for row in chosen])
        values = _statistic(pooled[np.hstack([chosen, rest])], runs)
    else:
        rng = np.random.default_rng(seed)
        parts = []
        for start in range(0, draws, _BATCH):
            size = (min(_BATCH, draws - start), total, games)
            order = rng.random(size).argsort(axis=1)
            parts.append(_statistic(np.take_along_axis(pooled[None], order, axis=1), runs))
        values = np.concatenate(parts)
    # Equal arrangements differ by rounding.
    slack = 1e-9 * max(1.0, abs(seen)) if math.isfinite(seen) else 0.0
    above, below = (values >= seen - slack).sum(), (values <= seen + slack).sum()
    extra = 0 if exact else 1
    return float(min(1.0, 2 * (min(above, below) + extra) / (len(values) + extra)))


def _statistic(pooled: FloatArray, runs: int) -> FloatArray:
    """Welch's t of (arrangements, runs, games); infinite if arms differ but their runs do not."""
    point, error, _ = t_parts(pooled[:, :runs], pooled[:, runs:], larger_variance=False)
    scale = np.abs(pooled).max() or 1.0
    point = np.where(np.abs(point) < 1e-12 * scale, 0.0, point)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(point / error, nan=0.0, posinf=np.inf, neginf=-np.inf)
