"""Results arranged by arm, seed and game, and refused results."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from envs.errors import UserError
from rlcnn.stats import Result, tabulate

WHOLE = [
    Result(arm, game, seed, 100 * (arm == "b") + 10 * seed + (game == "Pong"))
    for arm in ("a", "b")
    for seed in (1, 0)
    for game in ("Boxing", "Pong")
]


def test_rows_are_seeds_in_order_and_columns_games_as_they_came() -> None:
    table = tabulate(WHOLE)
    assert table.games == ("Boxing", "Pong")
    assert table.seeds == {"a": (0, 1), "b": (0, 1)}
    np.testing.assert_array_equal(table.scores["a"], [[0, 1], [10, 11]])
    np.testing.assert_array_equal(table.scores["b"], [[100, 101], [110, 111]])
    assert table.notes == ()


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_a_failed_run_is_refused_or_counted_but_never_dropped(score: float | None) -> None:
    results = [*WHOLE[:-1], WHOLE[-1]._replace(score=score)]
    with pytest.raises(UserError, match=r'arm "b" has .* of seed 0 in "Pong"'):
        tabulate(results)
    table = tabulate(results, failed_as={"Pong": -21.0})
    assert table.scores["b"][0, 1] == -21.0
    assert table.notes == ('arm "b", seed 0 in "Pong" failed and counts with a score of -21',)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([], "no results"),
        ([*WHOLE, WHOLE[0]], 'arm "a" has two scores of seed 1 in "Boxing"'),
        (WHOLE[:-1], 'arm "b" has no run of seed 0 in "Pong"'),
        (
            [r for r in WHOLE if (r.arm, r.game) != ("b", "Pong")],
            'arm "b" has no run in "Pong", where others have',
        ),
    ],
)
def test_missing_or_repeated_runs_are_named(results: list[Result], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        tabulate(results)
    assert "\n" not in str(caught.value)


def test_arms_of_different_numbers_of_seeds_are_noted() -> None:
    table = tabulate([r for r in WHOLE if (r.arm, r.seed) != ("b", 1)])
    assert table.scores["b"].shape == (1, 2)
    assert table.notes == ("arms have different numbers of runs: a 2, b 1",)
