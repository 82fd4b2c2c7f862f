"""Objectives of searches, on curves whose values are known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agents.config import TrainConfig
from agents.search.objective import (
    FIRST_SECONDS,
    NEVER,
    RUNGS,
    SECONDS_FACTOR,
    Curve,
    Objective,
    curve_key,
    parse_objective,
)
from agents.study.curves import TRAINING_RETURN
from agents.train.training import EVALUATION
from envs.errors import UserError

SCORE, AREA, TO_10 = (parse_objective(text) for text in ("score", "area", "seconds-to:10"))


def rows(*returns: float, length: float = 1.0, seconds: float = 30.0) -> list[dict[str, Any]]:
    """A point every 100 steps and some seconds."""
    return [
        {
            "step": 100 * number,
            TRAINING_RETURN: value,
            "rollout/ep_len_mean": length,
            "time/wall_seconds": seconds * number,
        }
        for number, value in enumerate(returns, start=1)
    ]


def curve(*returns: float, **options: float) -> Curve:
    return Curve.of(rows(*returns, **options), TRAINING_RETURN)


def test_the_area_is_the_mean_height() -> None:
    # From 0 on a straight line with slope 1/10, after 10 up to step 100.
    whole = curve(10.0, 20.0, 30.0, 40.0)
    assert whole.area(100) == pytest.approx(10.0)
    assert whole.area(200) == pytest.approx((10 * 100 + 15 * 100) / 200)
    assert whole.area(400) == pytest.approx((10 * 100 + 25 * 300) / 400)
    # After the last point its height goes on.
    assert whole.area(800) == pytest.approx((10 * 100 + 25 * 300 + 40 * 400) / 800)
    assert AREA.value(whole, None, 400) == whole.area(400)


def test_seconds_count_to_the_first_point_at_the_score() -> None:
    assert TO_10.value(curve(2.0, 9.0, 10.0, 4.0, 12.0), None, 500) == 90.0
    missed = TO_10.value(curve(2.0, 7.0, 5.0), 99.0, 300)
    assert missed == NEVER + 3.0
    assert TO_10.best(missed) == 7.0
    assert TO_10.written(missed) == "not reached (7.00)"
    assert TO_10.written(90.0) == "2 min"
    # All that reached it are before all that did not; of these the nearest is first.
    assert TO_10.value(curve(8.0), None, 100) < missed


def test_a_few_lucky_games_do_not_reach_a_score() -> None:
    # 4 games in 200 steps, 20 in 1,000.
    lucky = curve(*[15.0] * 10, length=50.0)
    assert TO_10.value(lucky, None, 1_000) == 300.0
    assert TO_10.value(curve(15.0, 1.0, length=50.0), None, 200) == NEVER
    assert not TO_10.reached(curve(15.0, length=50.0))
    assert TO_10.reached(lucky)
    assert not SCORE.reached(lucky)


def test_a_run_without_a_value_says_why() -> None:
    with pytest.raises(UserError, match="no final evaluation"):
        SCORE.value(curve(1.0), None, 100)
    for objective in (AREA, TO_10):
        with pytest.raises(UserError, match="no game ended before the training did"):
            objective.value(curve(), 1.0, 100)
    assert SCORE.value(curve(), 1.0, 100) == 1.0
    untimed = [{k: v for k, v in row.items() if "time" not in k} for row in rows(*[20.0] * 3)]
    with pytest.raises(UserError, match="no wall seconds"):
        TO_10.value(Curve.of(untimed, TRAINING_RETURN), None, 300)


def test_trials_are_compared_at_shares_of_their_steps() -> None:
    # Half of 2,000 steps, on the line of slope 1/100.
    half = curve(*[float(number) for number in range(1, 11)])
    interim = SCORE.interim(half, 2_000)
    assert list(interim) == list(range(1, RUNGS // 2 + 1))
    assert interim[10] == pytest.approx(10.0)
    assert interim[4] == pytest.approx(4.0)
    assert AREA.interim(half, 2_000)[10] == pytest.approx(half.area(1_000))
    assert SCORE.interim(curve(), 2_000) == {}


def test_where_seconds_count_trials_are_compared_at_equal_times() -> None:
    interim = TO_10.interim(curve(1.0, 2.0, 3.0, seconds=10.0), 10_000)
    times = [FIRST_SECONDS * SECONDS_FACTOR**rung for rung in interim]
    assert times[0] == 15.0
    assert times[-1] <= 30.0 < times[-1] * SECONDS_FACTOR
    # Smaller is better.
    assert interim[0] == pytest.approx(-1.5)
    assert TO_10.interim(curve(1.0, seconds=10.0), 10_000) == {}


@pytest.mark.parametrize(
    "text, message",
    [
        ("scor", 'Did you mean "score"?'),
        ("score:18", "is unknown: expected score, area or seconds-to:SCORE"),
        ("seconds-to", "expected a score, such as seconds-to:18"),
        ("seconds-to:", "expected a score"),
        ("seconds-to:nan", "expected a score"),
        ("seconds-to:inf", "expected a score"),
        ("seconds:18", 'Did you mean "seconds-to:18"?'),
        ("", "is unknown"),
    ],
)
def test_an_objective_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_objective(text)
    assert message in str(error.value)


def test_objectives_are_written_as_they_are_read() -> None:
    for objective in (SCORE, AREA, TO_10, Objective("seconds-to", -3.5)):
        assert parse_objective(objective.text) == objective
    assert math.isnan(SCORE.target)


@pytest.mark.parametrize(
    "every, key", [(0, TRAINING_RETURN), (400, TRAINING_RETURN), (200, EVALUATION)]
)
def test_the_curve_is_of_evaluations_if_there_are_enough(every: int, key: str) -> None:
    assert curve_key(TrainConfig(total_steps=1_000, eval_every=every)) == key
