"""Intervals of accuracies, against published figures and their nominal coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlcnn.stats.accuracy import (
    clustered_gain_interval,
    clustered_interval,
    paired_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    "successes, trials, expected",
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I,
        # method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilsons_interval_is_the_published_one(
    successes: int, trials: int, expected: tuple[float, float]
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-5)
    mirrored = tuple(1 - end for end in reversed(expected))
    assert wilson_interval(trials - successes, trials) == pytest.approx(mirrored, abs=5e-5)


def test_the_paired_interval_is_bonetts_and_prices() -> None:
    first, second, both, neither = 12, 5, 60, 23
    differences = [1] * first + [-1] * second + [0] * (both + neither)
    n = len(differences) + 2
    p12, p21 = (first + 1) / n, (second + 1) / n
    half = 1.959964 * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / n)
    expected = (p12 - p21 - half, p12 - p21 + half)
    assert paired_interval(differences) == pytest.approx(expected, abs=1e-6)


def test_intervals_have_their_nominal_coverage() -> None:
    random = np.random.default_rng(0)
    covered = {"one": 0, "pair": 0}
    games, images = 2000, 150
    for _ in range(games):
        # Two classifiers that err on the same images more often than chance would have it.
        hard = random.random(images) < 0.3
        a = random.random(images) < np.where(hard, 0.4, 0.9)
        b = random.random(images) < np.where(hard, 0.2, 0.85)
        lower, upper = wilson_interval(int(a.sum()), images)
        covered["one"] += lower <= 0.3 * 0.4 + 0.7 * 0.9 <= upper
        lower, upper = paired_interval(a.astype(float) - b)
        covered["pair"] += lower <= 0.3 * 0.2 + 0.7 * 0.05 <= upper
    # Four standard errors of a coverage of 95% in so many games.
    slack = 4 * np.sqrt(0.95 * 0.05 / games)
    assert {name: abs(n / games - 0.95) < slack for name, n in covered.items()} == {
        "one": True,
        "pair": True,
    }


def test_two_that_never_differ_have_an_interval_with_a_width() -> None:
    lower, upper = paired_interval(np.zeros(20))
    assert lower < 0 < upper
    assert paired_interval([1.0])[1] <= 1


def test_a_higher_confidence_is_a_wider_interval() -> None:
    lower, upper = wilson_interval(30, 100)
    wide = wilson_interval(30, 100, confidence=0.99)
    assert wide[0] < lower < upper < wide[1]


def test_one_column_of_equal_clusters_has_students_interval_of_their_means() -> None:
    random = np.random.default_rng(0)
    means = random.normal(size=7)
    values = np.repeat(means, 5) + np.tile([-2.0, -1, 0, 1, 2], 7)
    clusters = np.repeat(np.arange(7), 5)
    found = clustered_interval(values[:, None], clusters, np.zeros(35))
    expected = stats.t.interval(0.95, 6, means.mean(), stats.sem(means))
    assert found == pytest.approx(expected)


def test_equal_images_of_a_cluster_count_once() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(12, 3))
    alone = np.arange(12)
    repeated = np.repeat(values, 100, axis=0)
    assert clustered_interval(repeated, np.repeat(alone, 100), np.zeros(1200)) == pytest.approx(
        clustered_interval(values, alone, np.zeros(12))
    )


def test_clustered_intervals_have_their_nominal_coverage() -> None:
    random = np.random.default_rng(0)
    covered = naive = 0
    studies = 1000
    for _ in range(studies):
        values, clusters, strata = [], [], []
        for stratum, episodes in enumerate((8, 12)):
            for _ in range(episodes):
                # Frames of an episode go up and down together; episodes differ in length.
                length = random.integers(5, 40)
                column = np.full((length, 2), np.nan)
                common = 0.2 * random.normal()
                column[:, stratum] = 0.1 * stratum + common + 0.3 * random.normal(size=length)
                clusters += [len(strata)] * length
                strata += [stratum] * length
                values.append(column)
        both = np.concatenate(values)
        interval = clustered_interval(both, clusters, strata)
        assert interval is not None
        covered += interval[0] <= 0.05 <= interval[1]
        interval = clustered_interval(both, np.arange(len(both)), strata)
        assert interval is not None
        naive += interval[0] <= 0.05 <= interval[1]
    # Four standard errors of a coverage of 95%.
    assert abs(covered / studies - 0.95) < 4 * np.sqrt(0.95 * 0.05 / studies)
    # Taking frames for independent would be far off.
    assert naive / studies < 0.7


def test_a_single_cluster_has_no_interval() -> None:
    values = np.ones((6, 2))
    assert clustered_interval(values, [0] * 6, [0] * 6) is None
    assert clustered_interval(values, [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]) is None
    values[2:, 1] = np.nan
    assert clustered_interval(values, [0, 0, 1, 1, 2, 2], [0] * 6) is None
    # A column of which nothing is known takes no part.
    values[:, 1] = np.nan
    assert clustered_interval(values, [0, 0, 1, 1, 2, 2], [0] * 6) == (1, 1)


def test_a_gain_that_is_the_same_in_all_clusters_has_an_interval_with_a_width() -> None:
    clusters, strata = np.repeat(np.arange(6), 50), np.zeros(300)
    same = clustered_gain_interval(np.zeros((300, 1)), clusters, strata)
    assert same == paired_interval(np.zeros(6))
    ahead = clustered_gain_interval(np.ones((300, 2)), clusters, strata)
    assert ahead == paired_interval(np.ones(6))
    differing = np.repeat(np.arange(6) % 2, 50)[:, None]
    expected = clustered_interval(differing, clusters, strata)
    assert clustered_gain_interval(differing, clusters, strata) == expected
    assert clustered_gain_interval(np.zeros((50, 1)), np.zeros(50), np.zeros(50)) is None
