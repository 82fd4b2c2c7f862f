"""The interval of the difference, and exact tests, against textbook values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from support.property_tests import arrays, given, st

from envs.errors import UserError
from rlcnn.stats import difference_interval, permutation_p, ratio_interval, smallest_p
from rlcnn.stats.intervals import t_parts, t_reach

five_runs = arrays(float, (5, 2), elements=st.floats(-10, 10, width=16), unique=True)


def test_of_equal_variances_it_is_students_interval() -> None:
    control = np.array([[0.0], [1.0], [2.0], [5.0]])
    theirs = stats.ttest_ind(control[:, 0] + 3, control[:, 0]).confidence_interval(0.95)
    ours = difference_interval(control + 3, control)
    assert (ours.point, ours.low, ours.high) == pytest.approx((3, theirs.low, theirs.high))
    assert ours.freedom == pytest.approx(6)


def test_without_the_larger_variance_it_is_welchs_interval() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 1)), rng.normal(2, 5, size=(7, 1))
    theirs = stats.ttest_ind(first[:, 0], second[:, 0], equal_var=False).confidence_interval(0.95)
    point, error, freedom = t_parts(first, second, larger_variance=False)
    reach = t_reach(error, freedom, 0.95)
    assert (point - reach, point + reach) == pytest.approx((theirs.low, theirs.high))


def test_games_add_their_variances() -> None:
    # Variances 1 and 4 in both arms, 3 runs: error^2 = (2/3 + 8/3) / 2^2; by Satterthwaite
    # (5 * 2/3)^2 / (2 * ((1/3)^2 + (4/3)^2) / 2) = 100/17 degrees of freedom.
    control = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
    ours = difference_interval(control + np.array([1.0, 3.0]), control)
    assert ours.point == pytest.approx(2)
    assert ours.error == pytest.approx(math.sqrt(10 / 3 / 4))
    assert ours.freedom == pytest.approx(100 / 17)


@given(five_runs, five_runs)
def test_both_arms_count_with_the_larger_variance(first: np.ndarray, second: np.ndarray) -> None:
    ours = difference_interval(first, second)
    larger = np.maximum(first.var(axis=0, ddof=1), second.var(axis=0, ddof=1))
    assert ours.error == pytest.approx(math.sqrt(2 * larger.sum() / 5) / 2)
    back = difference_interval(second, first)
    assert (ours.low, ours.high) == pytest.approx((-back.high, -back.low))


def test_both_arms_count_with_the_smaller_number_of_runs() -> None:
    control = np.arange(10.0)[:, None]
    few, many = control[:5] * 2, control
    ours = difference_interval(few, many)
    larger = max(few.var(ddof=1), many.var(ddof=1))
    assert ours.error == pytest.approx(math.sqrt(2 * larger / 5))
    assert ours.freedom == pytest.approx(8)


@given(five_runs, five_runs, st.floats(-5, 5), st.floats(0.5, 5))
def test_it_follows_shift_and_scale(
    first: np.ndarray, second: np.ndarray, shift: float, scale: float
) -> None:
    before = difference_interval(first, second)
    after = difference_interval(scale * first + shift, scale * second)
    assert after.low == pytest.approx(scale * before.low + shift, abs=1e-6)
    assert after.high == pytest.approx(scale * before.high + shift, abs=1e-6)


def test_a_game_without_spread_adds_none() -> None:
    first = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]])
    alone = difference_interval(first[:, 1:], first[:, 1:] + 1)
    both = difference_interval(first, first + 1)
    assert both.error == pytest.approx(alone.error / 2)
    assert both.freedom == pytest.approx(alone.freedom)


def test_runs_that_do_not_differ_give_no_interval() -> None:
    # 0.1 three times has a variance of 2e-34 when reckoned naively.
    ours = difference_interval(np.full((3, 1), 0.7), np.full((3, 1), 0.1))
    assert (ours.low, ours.high) == (-math.inf, math.inf)
    assert ours.side == 0
    assert ours.smallest_detectable() == math.inf


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_the_smallest_detectable_difference_is_found_four_times_in_five(runs: int) -> None:
    rng = np.random.default_rng(runs)
    control = np.linspace(0, 1, runs)[:, None]
    control /= control.std(ddof=1)
    shift = difference_interval(control, control).smallest_detectable(power=0.8)
    # Of normal scores with that deviation, in Student's test.
    studies = 20_000
    first, second = rng.normal(shift, 1, (studies, runs, 1)), rng.normal(0, 1, (studies, runs, 1))
    means = (first - second).mean(axis=(1, 2))
    error = np.sqrt((first.var(axis=1, ddof=1) + second.var(axis=1, ddof=1))[:, 0] / runs)
    found = (means / error > stats.t.ppf(0.975, 2 * runs - 2)).mean()
    # Four standard errors of a share of 20,000.
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / studies))


def test_fiellers_interval_contains_the_ratios_that_a_t_test_keeps() -> None:
    first = np.array([[3.0], [4.0], [5.5], [6.0]])
    second = np.array([[2.0], [3.0], [2.5], [4.0]])
    ratio = ratio_interval(first, second)
    assert ratio is not None
    assert ratio.point == pytest.approx(first.mean() / second.mean())
    larger = max(first.var(ddof=1), second.var(ddof=1))
    quantile = stats.t.ppf(0.975, difference_interval(first, second).freedom)
    for end in (ratio.low, ratio.high):
        distance = abs(first.mean() - end * second.mean())
        assert distance == pytest.approx(quantile * math.sqrt(larger / 4 * (1 + end**2)))


def test_a_ratio_to_about_nothing_has_no_interval() -> None:
    near_zero = np.array([[-1.0], [1.0], [0.1]])
    assert ratio_interval(near_zero + 5, near_zero) is None


@pytest.mark.parametrize(("runs", "p"), [(3, 0.10), (4, 0.029), (5, 0.0079)])
def test_the_smallest_p_of_few_runs(runs: int, p: float) -> None:
    assert smallest_p(runs, runs) == pytest.approx(p, rel=0.02)
    apart = np.arange(2.0 * runs)
    assert permutation_p(apart[runs:], apart[:runs]) == pytest.approx(smallest_p(runs, runs))
    theirs = stats.mannwhitneyu(apart[runs:], apart[:runs], method="exact").pvalue
    assert smallest_p(runs, runs) == pytest.approx(theirs)


def test_more_games_allow_smaller_p() -> None:
    assert smallest_p(3, 3, games=2) == pytest.approx(2 / 400)


def test_the_exact_test_counts_every_arrangement() -> None:
    pooled = np.array([0.0, 1.0, 3.0, 4.5, 9.0, 2.0])

    def welch(rows: tuple[int, ...]) -> float:
        rest = [row for row in range(6) if row not in rows]
        return float(stats.ttest_ind(pooled[list(rows)], pooled[rest], equal_var=False).statistic)

    values = np.array([welch(rows) for rows in itertools.combinations(range(6), 3)])
    seen = welch((0, 1, 2))
    expected = 2 * min((values >= seen - 1e-9).mean(), (values <= seen + 1e-9).mean())
    assert permutation_p(pooled[:3], pooled[3:]) == pytest.approx(min(expected, 1))


def test_equal_arms_and_arms_without_spread_have_a_p_of_one() -> None:
    assert permutation_p(np.arange(4.0), np.arange(4.0)) == 1.0
    assert permutation_p(np.ones(4), np.ones(4)) == 1.0


def test_drawn_arrangements_follow_the_seed() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, size=(4, 2)), rng.normal(size=(4, 2))
    p = permutation_p(first, second, seed=1, draws=2_000)
    assert p == permutation_p(first, second, seed=1, draws=2_000)
    assert 1 / 2_001 <= p <= 1


@pytest.mark.parametrize(
    ("treatment", "control", "said"),
    [
        ([1.0], [1.0, 2.0], 'arm "treatment" has 1 run:'),
        ([1.0, 2.0], [1.0], 'arm "control" has 1 run:'),
        ([1.0, math.nan], [1.0, 2.0], "nan in run 1, game 0"),
        ([1.0, 2.0], [1.0, math.inf], "inf in run 1, game 0"),
        ([[1.0, 2.0], [1.0]], [1.0, 2.0], "ragged"),
        ([[1.0, 2.0], [1.0, 3.0]], [1.0, 2.0], "the same games"),
        (["a", "b"], [1.0, 2.0], "no numbers"),
        ([], [1.0, 2.0], "not empty"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_in_one_line(
    treatment: list[float], control: list[float], said: str
) -> None:
    for compare in (difference_interval, permutation_p, ratio_interval):
        with pytest.raises(UserError, match=said) as caught:
            compare(treatment, control)
        assert "\n" not in str(caught.value)


def test_an_invalid_confidence_is_refused() -> None:
    with pytest.raises(UserError, match=r"confidence 1\.5"):
        difference_interval([1.0, 2.0], [1.0, 2.0], confidence=1.5)
