"""Rank correlations of few pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from envs.errors import UserError
from rlcnn.stats import rank_correlation


@pytest.mark.parametrize("count", [4, 7, 30])
def test_rho_is_scipys_and_lies_in_its_interval(count: int) -> None:
    random = np.random.default_rng(count)
    first = random.integers(0, 4, count).astype(float)
    second = first + random.normal(size=count)
    found = rank_correlation(first, second)
    assert found.rho == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.pairs == count
    lower, upper = found.interval
    assert -1 <= lower < found.rho < upper <= 1
    # The same for the opposite order.
    other = rank_correlation(first, -second)
    assert (other.rho, *other.interval) == pytest.approx((-found.rho, -upper, -lower))


def test_few_pairs_in_perfect_order_prove_little() -> None:
    few, many = (rank_correlation(range(n), [x**3 for x in range(n)]) for n in (4, 40))
    assert few.rho == many.rho == 1
    assert few.interval[1] == many.interval[1] == 1
    # Of 4 pairs, rho 0.8 with its standard error of 1.15 on Fisher's scale.
    low = math.tanh(math.atanh(0.8) - 1.959964 * math.sqrt(1 + 0.8**2 / 2))
    assert few.interval[0] == pytest.approx(low)
    assert few.interval[0] < 0 < 0.9 < many.interval[0]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([1, 2, 3], [1, 2, 3], "needs at least 4 arms, not 3"),
        ([1, 2, 3, math.nan], [1, 2, 3, 4], "finite numbers"),
        ([1, 2, 3, 4], [5, 5, 5, 5], "all of one kind are equal"),
    ],
)
def test_what_has_no_rank_correlation_is_refused(
    first: list[float], second: list[float], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        rank_correlation(first, second)
