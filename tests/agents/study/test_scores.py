"""The scale on which a study's scores are normalised, and its verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.study_files import make_plan

from agents.study.results import StudyResults
from agents.study.scores import Scale, human_score, study_scores, verdicts
from envs.registry import game_name
from rlcnn.report import RunResult
from rlcnn.stats import RandomAgent
from rlcnn.stats.verdict import Verdict


def random_games(mean: float, deviation: float) -> np.ndarray:
    """Returns of 30 games with that mean and standard deviation."""
    ranks = np.arange(30) - 14.5
    return mean + deviation * ranks / ranks.std(ddof=1)


# As 30 games at random gave them, under the protocol "classic".
DOUBLE_DUNK, PONG = random_games(-17.9, 3.3), random_games(-20.2, 1.2)
KRULL, TIME_PILOT = random_games(1850, 649), random_games(3367, 2008)


def verdict_of(
    returns: Mapping[str, np.ndarray], ends: Mapping[str, float], *games: str
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict of a study of two arms whose runs end at ``ends`` and their seed."""
    plan = make_plan(games=games)
    runs = [
        RunResult(run.game, run.arm, run.seed, "done", ends[run.arm] + run.seed)
        for run in plan.runs
    ]
    by_id = {env_id: returns[game_name(env_id)].tolist() for env_id in plan.games}
    results = StudyResults(Path(), plan, runs, by_id)
    scores = study_scores(results)
    (verdict,) = verdicts(results, scores)
    return verdict, scores.notes


def test_only_ales_games_have_a_human_score() -> None:
    assert human_score("ALE/Pong-v5") == 14.6
    # The first is an Atari protocol of old, which is refused; the rest anybody may register.
    for env_id in (
        "Pong-v0",
        "Pong-v1",
        "support.games:Pong-v5",
        "Pong",
        "support.games:Signals-v0",
    ):
        assert human_score(env_id) is None
    # One of ALE's, but none of the 57.
    assert human_score("ALE/Adventure-v5") is None


@pytest.mark.parametrize("env_id", ["Pong-v1", "Pong"])
def test_other_environments_do_not_use_ataris_human_score(env_id: str) -> None:
    agent = RandomAgent.from_returns({env_id: PONG})
    scale = Scale.of([env_id], agent)
    assert not scale.human
    assert scale.unit == "deviations of random play"


def test_the_humans_scale_is_used_if_the_human_is_far_above_random_play() -> None:
    verdict, notes = verdict_of({"Pong": PONG}, {"scratch": 10, "frozen-random": 0}, "ALE/Pong-v5")
    assert "human-normalised score" in verdict.sentence
    assert verdict.difference.point == pytest.approx(-10 / (14.6 + 20.2))
    assert notes == ()


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_a_human_score_near_random_play_gives_no_scale(shift: float) -> None:
    # Also where random play was measured above the human: that is no reason for no verdict.
    dunk = DOUBLE_DUNK + shift
    verdict, (note,) = verdict_of(
        {"DoubleDunk": dunk, "Pong": PONG},
        {"scratch": 10, "frozen-random": 0},
        *("ALE/DoubleDunk-v5", "ALE/Pong-v5"),
    )
    assert "deviations of random play" in verdict.sentence
    expected = -10 * (1 / dunk.std(ddof=1) + 1 / PONG.std(ddof=1)) / 2
    assert verdict.difference.point == pytest.approx(expected)
    assert "a human's -16.4 in DoubleDunk is too near" in note


def test_noisy_games_keep_the_humans_scale_if_the_human_is_clearly_above() -> None:
    agent = RandomAgent.from_returns({"Krull": KRULL, "TimePilot": TIME_PILOT})
    assert Scale.of(["ALE/Krull-v5", "ALE/TimePilot-v5"], agent).human


def test_random_play_with_constant_returns_does_not_prevent_a_verdict() -> None:
    name = "support.games:Signals-v0"
    verdict, (note,) = verdict_of({name: np.zeros(30)}, {"scratch": 10, "frozen-random": 0}, name)
    assert verdict.finding == "worse"
    assert verdict.difference.point == -10
    assert "points above random play" in verdict.sentence
    assert f"all random games of {name} returned 0" in note
