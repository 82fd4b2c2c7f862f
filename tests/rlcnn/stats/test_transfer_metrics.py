"""Transfer metrics of curves whose areas and times are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.property_tests import given, st

from envs.errors import UserError
from rlcnn.stats import Curves, both_budgets, transfer_metrics


def lines(starts: list[float], ends: list[float], length: float = 100.0) -> Curves:
    """Straight learning curves, evaluated at their ends only."""
    return Curves.of([0.0, length], np.column_stack([starts, ends]))


CONTROL = {"Pong": lines([0.0, 0.2], [0.8, 1.0])}
TREATMENT = {"Pong": lines([0.4, 0.6], [1.0, 1.2])}


def test_straight_lines_have_known_gains() -> None:
    metrics = transfer_metrics(TREATMENT, CONTROL, threshold=0.5)
    assert metrics.budgets == {"Pong": 100.0}
    assert metrics.jumpstart is not None
    assert metrics.jumpstart.point == pytest.approx(0.4)
    assert metrics.asymptotic.point == pytest.approx(0.2)
    # Mean scores: 0.4 and 0.6 against 0.7 and 0.9.
    assert metrics.area.point == pytest.approx(0.3)
    # 0.5 is reached at 62.5 and 37.5 by the control, at 100/6 and 0 by the treatment.
    assert metrics.time.restricted_means == pytest.approx((100 / 12, 50.0))
    assert metrics.time.saved.point == pytest.approx(50 - 100 / 12)
    assert metrics.time.reached == (1.0, 1.0)


def test_the_transfer_ratio_is_the_gain_over_the_controls_area() -> None:
    # Taylor and Stone 2009: (area with transfer - area without) / area without.
    rng = np.random.default_rng(0)
    ends = rng.normal(1.0, 0.05, size=6)
    control = {"Pong": lines([0.0] * 6, list(ends))}
    treatment = {"Pong": lines([1.0] * 6, list(ends))}
    metrics = transfer_metrics(treatment, control, threshold=0.5)
    assert metrics.transfer_ratio is not None
    assert metrics.transfer_ratio.point == pytest.approx(1 / ends.mean())
    assert metrics.transfer_ratio.low < 1 / ends.mean() < metrics.transfer_ratio.high


def test_there_is_no_ratio_to_an_area_of_about_nothing() -> None:
    control = {"Pong": lines([0.0, 0.0], [0.1, -0.1])}
    assert transfer_metrics(TREATMENT, control, threshold=0.5).transfer_ratio is None


def test_a_run_that_never_reaches_the_threshold_counts_with_the_whole_budget() -> None:
    control = {"Pong": lines([0.0, 0.0], [1.0, 0.1])}
    metrics = transfer_metrics(TREATMENT, control, threshold=0.5)
    assert metrics.time.reached == (1.0, 0.5)
    assert metrics.time.restricted_means[1] == pytest.approx((50 + 100) / 2)


def test_both_arms_are_compared_up_to_the_budget_they_share() -> None:
    longer = {"Pong": lines([0.0, 0.0], [2.0, 2.0], length=200.0)}
    metrics = transfer_metrics(longer, CONTROL, threshold=1.5)
    assert metrics.budgets == {"Pong": 100.0}
    # Half way up; 1.5 is reached at 150, beyond the budget.
    assert metrics.asymptotic.point == pytest.approx(1.0 - 0.9)
    assert metrics.time.reached == (0.0, 0.0)
    assert metrics.time.restricted_means == (100.0, 100.0)


def test_pretraining_shifts_the_curves_with_a_score_of_zero_before() -> None:
    target, whole = both_budgets(TREATMENT, CONTROL, threshold=0.5, pretraining=50.0)
    assert target.pretraining == 0
    assert whole.pretraining == 50
    assert whole.jumpstart is None
    # At 100 the treatment is half way: 0.7 and 0.9, against 0.8 and 1.0.
    assert whole.asymptotic.point == pytest.approx(-0.1)
    # Mean over the second half 0.55 and 0.75, over the whole half of that; against 0.4 and 0.6.
    assert whole.area.point == pytest.approx(0.325 - 0.5)
    assert whole.time.restricted_means == pytest.approx((50 + 100 / 12, 50.0))


def test_pretraining_beyond_the_budget_leaves_nothing() -> None:
    metrics = transfer_metrics(TREATMENT, CONTROL, threshold=0.5, pretraining=150.0)
    assert metrics.time.reached[0] == 0
    assert metrics.time.restricted_means[0] == 100
    assert metrics.asymptotic.point == pytest.approx(-0.9)


def test_each_run_may_have_its_own_times_of_evaluation() -> None:
    seconds = Curves.of([[0.0, 100.0], [0.0, 200.0]], [[0.0, 1.0], [0.0, 1.0]])
    metrics = transfer_metrics({"Pong": seconds}, CONTROL, threshold=0.5)
    assert metrics.budgets == {"Pong": 100.0}
    assert metrics.time.restricted_means[0] == pytest.approx((50 + 100) / 2)


def test_games_have_equal_weight() -> None:
    treatment = {**TREATMENT, "Boxing": lines([0.0, 0.2], [0.8, 1.0], length=10.0)}
    control = {**CONTROL, "Boxing": lines([0.0, 0.2], [0.8, 1.0], length=10.0)}
    metrics = transfer_metrics(treatment, control, threshold=0.5)
    assert metrics.asymptotic.point == pytest.approx(0.1)
    assert metrics.budgets == {"Pong": 100.0, "Boxing": 10.0}


def test_a_first_evaluation_applies_to_the_time_before_it() -> None:
    curves = Curves.of([50.0, 100.0], [[1.0, 3.0]])
    assert curves.mean_until(100.0) == pytest.approx([(50 * 1 + 50 * 2) / 100])


@given(st.lists(st.floats(0, 1), min_size=3, max_size=8), st.floats(0.01, 1))
def test_a_threshold_is_reached_where_the_curve_first_meets_it(
    scores: list[float], threshold: float
) -> None:
    curves = Curves.of(np.arange(len(scores)), [scores])
    time = float(curves.time_to(threshold)[0])
    if max(scores) < threshold:
        assert time == math.inf
        return
    assert float(curves.at(time)[0]) >= threshold - 1e-9
    assert all(score < threshold for score in scores[: math.ceil(time)])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0.1, 6))
def test_a_mean_lies_between_the_least_and_the_greatest_score(
    scores: list[float], budget: float
) -> None:
    mean = float(Curves.of(np.arange(len(scores)), [scores]).mean_until(budget)[0])
    assert min(scores) - 1e-9 <= mean <= max(scores) + 1e-9


@pytest.mark.parametrize(
    ("spent", "scores", "said"),
    [
        ([0.0, 1.0], [[0.0, math.nan]], "nan in run 0, game 1"),
        ([0.0, 1.0], [[0.0, 1.0], [0.0]], "ragged"),
        ([0.0, 1.0, 2.0], [[0.0, 1.0]], "as many points"),
        ([1.0, 0.0], [[0.0, 1.0]], "increase"),
        ([-1.0, 0.0], [[0.0, 1.0]], "increase"),
        ([0.0], [[0.0]], "1 point"),
    ],
)
def test_invalid_curves_are_refused(spent: list[float], scores: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Curves.of(spent, scores)  # type: ignore[arg-type]


def test_what_cannot_be_compared_is_refused() -> None:
    one = lines([0.0], [1.0])
    with pytest.raises(UserError, match='only one of the two arms has curves of "Boxing"'):
        transfer_metrics({**TREATMENT, "Boxing": one}, CONTROL, threshold=0.5)
    with pytest.raises(UserError, match="2 in Pong, 1 in Boxing runs"):
        transfer_metrics({**TREATMENT, "Boxing": one}, {**CONTROL, "Boxing": one}, threshold=0.5)
    with pytest.raises(UserError, match="has 1 run:"):
        transfer_metrics({"Pong": one}, CONTROL, threshold=0.5)
    with pytest.raises(UserError, match="no learning curves"):
        transfer_metrics({}, {}, threshold=0.5)
    with pytest.raises(UserError, match="threshold nan"):
        transfer_metrics(TREATMENT, CONTROL, threshold=math.nan)
    with pytest.raises(UserError, match=r"pretraining -1"):
        transfer_metrics(TREATMENT, CONTROL, threshold=0.5, pretraining=-1)
