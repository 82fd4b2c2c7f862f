"""Aggregates against closed forms, and bootstrap intervals against exact ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from support.property_tests import array_shapes, arrays, given, st

from envs.errors import UserError
from rlcnn.stats import (
    AGGREGATES,
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

matrices = arrays(
    float,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-100, 100, allow_subnormal=False),
)


def test_aggregates_of_a_matrix_worked_by_hand() -> None:
    scores = np.array([[0.0, 1.0, 8.0], [2.0, 3.0, 10.0]])
    assert aggregate_mean(scores) == 4.0
    # Means of the games: 1, 2 and 9.
    assert aggregate_median(scores) == 2.0
    # One of six is cut at each end: 1, 2, 3 and 8 are left.
    assert aggregate_iqm(scores) == 3.5
    assert aggregate_optimality_gap(scores, gamma=2.0) == pytest.approx(2 - 9 / 6)


def test_the_iqm_of_an_arithmetic_series_is_its_mean() -> None:
    assert aggregate_iqm(np.arange(12.0).reshape(4, 3)) == 5.5


def test_of_three_scores_the_iqm_cuts_nothing() -> None:
    assert aggregate_iqm(np.array([[0.0], [1.0], [8.0]])) == 3.0


@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregates_take_any_number_of_studies_at_once(name: str) -> None:
    studies = np.random.default_rng(0).normal(size=(3, 5, 4))
    one_by_one = [AGGREGATES[name](study) for study in studies]
    np.testing.assert_allclose(AGGREGATES[name](studies), one_by_one)


@given(matrices, st.floats(-10, 10), st.floats(0.1, 10))
def test_location_aggregates_follow_shift_and_scale(
    scores: np.ndarray, shift: float, scale: float
) -> None:
    for aggregate in (aggregate_mean, aggregate_median, aggregate_iqm):
        # Rounding of sums of scores up to 1,000.
        assert aggregate(shift + scale * scores) == pytest.approx(
            shift + scale * aggregate(scores), abs=1e-9
        )
        assert scores.min() - 1e-9 <= aggregate(scores) <= scores.max() + 1e-9


@given(matrices, matrices)
def test_the_chances_of_two_arms_add_up_to_one(first: np.ndarray, second: np.ndarray) -> None:
    games = min(first.shape[1], second.shape[1])
    first, second = first[:, :games], second[:, :games]
    there, back = (
        probability_of_improvement(first, second),
        probability_of_improvement(second, first),
    )
    assert there + back == pytest.approx(1)
    assert probability_of_improvement(first, first) == pytest.approx(0.5)


def test_chance_of_improvement_counts_pairs() -> None:
    # Pairs of game one: 2 > 1, 2 = 2, 3 > 1, 3 > 2; of game two all lost.
    first = np.array([[2.0, 0.0], [3.0, 0.0]])
    second = np.array([[1.0, 5.0], [2.0, 5.0]])
    assert probability_of_improvement(first, second) == pytest.approx((3.5 / 4 + 0) / 2)


def test_a_profile_is_the_share_above_each_threshold() -> None:
    scores = np.array([[0.0, 1.0], [0.5, 3.0]])
    np.testing.assert_array_equal(
        performance_profile([-1, 0, 0.5, 2, 3])(scores), [1, 0.75, 0.5, 0.25, 0]
    )
    # Means of the games: 0.25 and 2.
    np.testing.assert_array_equal(
        performance_profile([0, 0.5, 2], of_means=True)(scores), [1, 0.5, 0]
    )


def exact_quantiles(scores: np.ndarray, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
    """Ends of the interval over all resamples of one game, each once."""
    every = itertools.product(range(len(scores)), repeat=len(scores))
    return np.quantile([statistic(scores[list(rows)]) for rows in every], [0.025, 0.975])


def test_bootstrap_intervals_are_those_of_all_resamples() -> None:
    scores = np.array([[0.0], [1.0], [4.0], [9.0]])
    estimate = interval_estimates({"a": scores}, aggregate_mean, reps=4_000)["a"]
    assert estimate.point == 3.5
    # Means lie on a grid of 0.25; 4,000 draws of 256 may miss an end by a step or two of it.
    expected = exact_quantiles(scores, lambda drawn: float(drawn.mean()))
    np.testing.assert_allclose([estimate.low, estimate.high], expected, atol=0.5)


def test_runs_are_resampled_within_games() -> None:
    # Between games scores differ by 100, within a game not at all: nothing varies.
    scores = np.array([[0.0, 100.0], [0.0, 100.0]])
    estimate = interval_estimates({"a": scores}, aggregate_mean, reps=50)["a"]
    assert (estimate.low, estimate.high) == (50.0, 50.0)


def test_the_intervals_of_an_arm_depend_on_the_seed_and_not_on_other_arms() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    alone = interval_estimates({"a": a}, aggregate_iqm, reps=100, seed=3)["a"]
    with_other = interval_estimates({"b": b, "a": a}, aggregate_iqm, reps=100, seed=3)["a"]
    other = interval_estimates({"a": a}, aggregate_iqm, reps=100, seed=4)["a"]
    assert (alone.low, alone.high) == (with_other.low, with_other.high)
    assert (alone.low, alone.high) != (other.low, other.high)


def test_a_difference_has_an_interval_of_its_own_though_those_of_the_arms_overlap() -> None:
    base = np.arange(10.0)[:, None]
    scores = {"a": base + 3, "b": base}
    both = interval_estimates(scores, aggregate_mean, reps=1_000)
    difference = difference_estimate(scores, "a", "b", aggregate_mean, reps=1_000)
    assert both["a"].low < both["b"].high
    assert difference.point == 3.0
    assert difference.low > 0


def test_the_difference_turned_round_changes_its_sign() -> None:
    rng = np.random.default_rng(1)
    scores = {"a": rng.normal(size=(5, 2)), "b": rng.normal(size=(7, 2))}
    there = difference_estimate(scores, "a", "b", aggregate_iqm, reps=200)
    back = difference_estimate(scores, "b", "a", aggregate_iqm, reps=200)
    np.testing.assert_allclose([there.low, there.high], [-back.high, -back.low], atol=1e-12)


def test_profiles_and_chances_have_intervals_too() -> None:
    rng = np.random.default_rng(1)
    scores = {"a": rng.normal(1, 1, size=(8, 2)), "b": rng.normal(size=(8, 2))}
    levels = np.linspace(-1, 2, 4)
    profile = difference_estimate(scores, "a", "b", performance_profile(levels), reps=200)
    assert profile.point.shape == profile.low.shape == profile.high.shape == (4,)
    assert (profile.low <= profile.high).all()
    chance = pair_estimate(scores, "a", "b", probability_of_improvement, reps=200)
    assert 0 <= chance.low <= chance.point <= chance.high <= 1


def test_options_that_give_no_interval_are_refused() -> None:
    scores = {"a": np.zeros((2, 1))}
    with pytest.raises(UserError, match="0 bootstrap samples"):
        interval_estimates(scores, aggregate_mean, reps=0)
    with pytest.raises(UserError, match=r"confidence 95"):
        interval_estimates(scores, aggregate_mean, confidence=95)


@pytest.mark.parametrize("name", AGGREGATES)
def test_rliable_gives_the_same_figures(name: str) -> None:
    library = pytest.importorskip(
        "rliable.library", reason="rliable is not installed (extra rliable)", exc_type=ImportError
    )
    metrics = pytest.importorskip("rliable.metrics")
    theirs = getattr(metrics, f"aggregate_{name.replace(' ', '_').lower()}")
    rng = np.random.default_rng(5)
    scores = {"a": rng.lognormal(size=(5, 4)), "b": rng.normal(size=(7, 4))}
    ours = interval_estimates(scores, AGGREGATES[name], reps=2_000)
    # It draws from numpy's global generator and ignores the given one.
    np.random.seed(0)
    points, intervals = library.get_interval_estimates(
        scores, lambda x: np.array([theirs(x)]), reps=2_000
    )
    for arm, array in scores.items():
        assert AGGREGATES[name](array) == pytest.approx(theirs(array))
        assert ours[arm].point == pytest.approx(points[arm][0])
        # Two independent bootstraps: an end's own noise is some 3% of the width with 2,000 draws.
        width = ours[arm].high - ours[arm].low
        np.testing.assert_allclose(
            [ours[arm].low, ours[arm].high], intervals[arm][:, 0], atol=0.12 * width
        )


def test_rliable_gives_the_same_chances_and_profiles() -> None:
    library = pytest.importorskip(
        "rliable.library", reason="rliable is not installed (extra rliable)", exc_type=ImportError
    )
    metrics = pytest.importorskip("rliable.metrics")
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 4, size=(5, 3)).astype(float), rng.integers(0, 4, size=(6, 3)) / 1.0
    assert probability_of_improvement(a, b) == pytest.approx(
        metrics.probability_of_improvement(a, b)
    )
    levels = np.linspace(-1, 5, 13)
    np.testing.assert_allclose(
        performance_profile(levels)(a), [library.run_score_deviation(a, tau) for tau in levels]
    )
    np.testing.assert_allclose(
        performance_profile(levels, of_means=True)(a),
        [library.mean_score_deviation(a, tau) for tau in levels],
    )
