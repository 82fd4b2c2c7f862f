"""The estimated cost of a study: training and evaluations, game by game."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from support.study_files import TINY, InlineLauncher

from agents.evaluate.random_agent import random_length
from agents.study.arms import parse_arm
from agents.study.cost import (
    Speed,
    estimate,
    kind,
    known_speeds,
    measure_speed,
    measure_speeds,
    print_cost,
)
from agents.study.plan import StudyPlan
from agents.study.results import RunResult

BASE = replace(TINY, eval_every=10, eval_episodes=4)
GAMES = ("support.games:Signals-v0", "support.games:Endless-v0")


def make_plan(*games: str) -> StudyPlan:
    arms = tuple(parse_arm(text) for text in ("scratch", "frozen-random"))
    return StudyPlan(games=games, arms=arms, seeds=(0, 1), base=BASE)


def test_evaluations_during_and_after_training_take_time() -> None:
    speed = Speed(training=16.0, evaluation=8.0, game=6.0, interim=8.0)
    # At 10, 20 and 30 steps and at the end, four games of 6 steps each.
    assert speed.seconds(BASE, done=0) == (2.0, 4 * 4 * 6 / 8)
    # Resumed from step 16: at 20, at 30 and at the end.
    assert speed.seconds(BASE, done=16) == (1.0, 3 * 4 * 6 / 8)
    # Only the last evaluation is missing.
    assert speed.seconds(BASE, done=32) == (0.0, 4 * 6 / 8)
    assert speed.seconds(replace(BASE, eval_every=0), done=0) == (2.0, 4 * 6 / 8)
    # The last step's evaluation is the one at the end.
    assert speed.seconds(replace(BASE, eval_every=16), done=0) == (2.0, 2 * 4 * 6 / 8)


def test_cheap_evaluations_before_the_last_have_their_own_cost() -> None:
    speed = Speed(training=16.0, evaluation=8.0, game=6.0, interim=2.0)
    cheap = replace(BASE, interim_episodes=3, interim_max_steps=5)
    # At 10, 20 and 30 steps three games of 5 steps each, at the end four of 6 steps.
    assert speed.seconds(cheap, done=0) == (2.0, 3 * 3 * 5 / 2 + 4 * 6 / 8)
    assert speed.seconds(replace(cheap, interim_max_steps=7), done=0)[1] == 3 * 3 * 6 / 2 + 3


def test_each_game_has_its_own_cost() -> None:
    plan = make_plan(*GAMES)
    fast, slow = Speed(32.0, 1.0, 0.0, 1.0), Speed(8.0, 1.0, 0.0, 1.0)
    speeds = {kind(run.config): fast if run.game == GAMES[0] else slow for run in plan.runs}
    assert len(speeds) == 4
    # Four runs of one second each, and four of four.
    cost = estimate(plan.runs, [0] * 8, speeds, workers=1)
    assert cost.hours == pytest.approx(20 / 3600)
    assert cost.steps == 8 * 32
    console = Console(file=io.StringIO(), width=200)
    to_do = [(run, RunResult(run.game, run.arm, run.seed, "waiting")) for run in plan.runs]
    print_cost(to_do, speeds, InlineLauncher(), console)
    assert "scratch: 8 to 32 steps/s" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_cost_says_how_much_of_it_is_evaluation() -> None:
    plan = make_plan(GAMES[0])
    speeds = {kind(run.config): Speed(16.0, 8.0, 1.0, 8.0) for run in plan.runs}
    # Two seconds of training and two of evaluations each, two runs one after the other.
    cost = estimate(plan.runs, [0] * 4, speeds, workers=2)
    assert cost.hours == pytest.approx(2 * 4 / 3600)
    assert cost.evaluation == pytest.approx(0.5)
    assert "about 0.1 minutes, of which 50% evaluations" in str(cost)
    assert "films not counted" in str(cost)


def test_speeds_are_measured_of_real_play_and_kept() -> None:
    (run, *_) = make_plan(GAMES[0]).runs
    run = replace(run, config=replace(run.config, interim_episodes=2))
    speed = measure_speed(run.config)
    assert speed.training > 0
    assert speed.evaluation > 0
    assert speed.interim > 0
    assert speed.interim != speed.evaluation
    # Every game of signals lasts 8 steps.
    assert speed.game == 8
    assert random_length(replace(BASE, env=GAMES[1]), most=20) == 20
    document = {"speeds": {"1": {kind(run.config): speed.to_json()}}}
    launcher = InlineLauncher()
    assert known_speeds(document, [run], launcher, Console(quiet=True)) == {kind(run.config): speed}
    assert launcher.done == []
    # A speed in an earlier release's form is measured again.
    written = {"training": speed.training, "judging": speed.evaluation, "game": speed.game}
    assert Speed.from_json(written) is None
    document = {"speeds": {"1": {kind(run.config): 526.0}}}  # type: ignore[dict-item]
    assert set(known_speeds(document, [run], launcher, Console(quiet=True))) == {kind(run.config)}
    assert len(launcher.done) == 1


def test_only_the_first_few_of_many_games_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"ALE/Pong-v5": 1.0, "ALE/Krull-v5": 2.0, "ALE/Boxing-v5": 6.0, "ALE/Alien-v5": 9.0}
    monkeypatch.setattr(
        "agents.study.cost.measure_speed",
        lambda config: Speed(rates[config.env] * (1 + (config.mode == "frozen")), 1.0, 1.0, 1.0),
    )
    plan, launcher = make_plan(*rates), InlineLauncher()
    said = io.StringIO()
    speeds = measure_speeds(plan.runs, launcher, Console(file=said, force_terminal=True, width=60))
    assert len(launcher.done) == 2 * 3
    assert "measuring speed" in said.getvalue()
    assert "0/6  ?/s" in said.getvalue()
    found = {
        run.arm: [speeds[kind(replace(run.config, env=game))].training for game in rates]
        for run in plan.runs
    }
    # The fourth is as fast as the three together.
    assert found == {"scratch": [1.0, 2.0, 6.0, 3.0], "frozen-random": [2.0, 4.0, 12.0, 6.0]}
