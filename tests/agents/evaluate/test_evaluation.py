"""The evaluation protocol: whole games, true returns, equal shares, seeds and chance of its own."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.property_tests import given, st
from support.toy_envs import Outcome, WorldVecEnv

from agents.config import PPOConfig, TrainConfig
from agents.evaluate import evaluation
from agents.evaluate.evaluation import (
    DQN_EPSILON,
    Evaluation,
    EvaluationPolicy,
    evaluate_agent,
    film_agent,
    game_environments,
    play_games,
    play_protocol,
)
from agents.seeding import derive_seed
from agents.train.builder import build_agent, make_train_env
from envs.errors import UserError
from envs.make import make_vec_env
from envs.protocol import PROTOCOLS

SIGNALS = TrainConfig(
    env="support.games:Signals-v0",
    encoder="lenet",
    encoder_options={"features_dim": 16},
    obs_size=36,
    frame_stack=2,
    num_envs=1,
    num_threads=1,
    device="cpu",
    precision="fp32",
    compile="off",
    eval_episodes=4,
    seed=3,
    ppo=PPOConfig(n_steps=8, batch_size=8),
)
INVADERS = replace(SIGNALS, env="ALE/SpaceInvaders-v5", protocol="short")


@pytest.fixture(autouse=True, scope="module")
def _short_games() -> Any:
    """Games of the emulator that a test has time for."""
    with pytest.MonkeyPatch.context() as patch:
        short = replace(PROTOCOLS["classic"], name="short", max_episode_steps=100)
        patch.setitem(PROTOCOLS, "short", short)
        sticky = replace(PROTOCOLS["sticky"], name="short sticky", max_episode_steps=20)
        patch.setitem(PROTOCOLS, "short sticky", sticky)
        yield


def make_agent(config: TrainConfig) -> Any:
    venv = make_train_env(config)
    try:
        return build_agent(config, venv)
    finally:
        venv.close()


@pytest.fixture(scope="module")
def ppo() -> Any:
    return make_agent(SIGNALS)


@pytest.fixture(scope="module")
def dqn() -> Any:
    agent = make_agent(replace(SIGNALS, algo="dqn"))
    # It always takes action 0: then no two series of games are likely to be worth the same, as
    # they are to a network that happens to choose wrongly wherever it is.
    head = [layer for layer in agent.q_net.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    return agent


@pytest.fixture(scope="module")
def invaders() -> Any:
    return make_agent(INVADERS)


# -- returns ---------------------------------------------------------------------------------------


def test_returns_are_those_of_whole_unclipped_games(invaders: Any) -> None:
    result = evaluate_agent(invaders, INVADERS, episodes=2)
    # The same games, added up here.
    seed = derive_seed(INVADERS.seed, "evaluate")
    venv = make_vec_env(
        INVADERS.env,
        2,
        protocol="short",
        training=False,
        obs_size=36,
        frame_stack=2,
        seed=seed,
        num_threads=1,
    )
    player, sums, lengths = EvaluationPolicy(invaders, seed), np.zeros(2), np.zeros(2, dtype=int)
    playing = np.ones(2, dtype=bool)
    observations = venv.reset()
    largest = 0.0
    while playing.any():
        assert isinstance(observations, np.ndarray)
        observations, rewards, dones, _ = venv.step(player(observations))
        sums += rewards * playing
        lengths += playing
        playing &= ~dones
        largest = max(largest, rewards.max())
    venv.close()
    assert result.returns == sums.tolist()
    assert result.lengths == lengths.tolist()
    assert largest > 1, "no reward that clipping would have changed"
    assert result.truncated == 2


class Uneven:
    """Games of 1 or 9 steps, equally often, that earn 1 a step."""

    n_actions = 2
    best_return = 9.0

    def start(self, rng: np.random.Generator) -> Any:
        return int(rng.choice([1, 9]))

    def show(self, state: Any) -> int:
        return 0

    def act(self, state: Any, action: int, rng: np.random.Generator) -> Outcome:
        return Outcome(state - 1, 1.0, ended=state == 1)


@pytest.mark.parametrize(("n_envs", "each"), [(300, 1), (100, 3)])
def test_short_games_do_not_count_more_than_long_ones(n_envs: int, each: int) -> None:
    venv = WorldVecEnv(Uneven(), n_envs)
    reported: list[float] = []
    games = play_games(
        lambda observations: np.zeros(n_envs, dtype=int), venv, each, reported.append
    )
    returns = [game["r"] for game in games]
    assert len(returns) == n_envs * each
    assert sorted(reported) == sorted(returns)
    # The first 300 to end would have a mean below 3.
    assert np.mean(returns) == pytest.approx(5, abs=0.5)


@given(st.integers(1, 500))
def test_every_environment_plays_the_same_number_of_games(episodes: int) -> None:
    environments = game_environments(episodes)
    assert episodes % environments == 0
    assert 1 <= environments <= 32
    assert not any(episodes % more == 0 for more in range(environments + 1, 33))


def test_games_that_never_end_are_cut_off() -> None:
    config = replace(SIGNALS, env="support.games:Endless-v0", protocol="short")
    result = evaluate_agent(make_agent(config), config, episodes=3)
    assert result.lengths == [100] * 3
    assert result.truncated == 3


def test_a_games_own_end_is_no_truncation(ppo: Any) -> None:
    result = evaluate_agent(ppo, SIGNALS)
    assert result.lengths == [8] * 4
    assert result.truncated == 0


def test_figures() -> None:
    result = Evaluation([1.0, 2.0, 6.0], [5, 6, 7], truncated=1, protocol={"name": "classic"})
    assert result.mean_return == 3
    assert result.std == pytest.approx(7**0.5)
    assert result.to_json() == {
        "mean_return": 3.0,
        "std": result.std,
        "episodes": 3,
        "returns": [1.0, 2.0, 6.0],
        "lengths": [5, 6, 7],
        "truncated": 1,
        "protocol": {"name": "classic"},
    }
    assert Evaluation([4.0], [5], 0, {}).std == 0


@pytest.mark.parametrize("episodes", [0, -3])
def test_no_games_are_refused(ppo: Any, episodes: int) -> None:
    with pytest.raises(UserError, match=f"at least 1 episode, not {episodes}"):
        evaluate_agent(ppo, SIGNALS, episodes=episodes)


def test_an_unknown_protocol_is_refused(ppo: Any) -> None:
    with pytest.raises(UserError, match=r'unknown protocol "stiky".*Did you mean "sticky"'):
        evaluate_agent(ppo, SIGNALS, protocol="stiky")


# -- what it depends on, and what it leaves alone --------------------------------------------------


def rng_states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return (random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist())  # type: ignore[union-attr]


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_training_does_not_notice(agent: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(agent)
    model.policy.set_training_mode(True)
    parameters = [parameter.clone() for parameter in model.policy.parameters()]
    before = rng_states()
    evaluate_agent(model, SIGNALS)
    assert rng_states() == before
    assert model.policy.training
    for mine, then in zip(model.policy.parameters(), parameters, strict=True):
        assert torch.equal(mine, then)


def test_training_does_not_notice_a_failure_either(ppo: Any) -> None:
    def fail(game_return: float) -> None:
        raise RuntimeError

    ppo.policy.set_training_mode(True)
    before = rng_states()
    with pytest.raises(RuntimeError):
        evaluate_agent(ppo, SIGNALS, on_game=fail)
    assert rng_states() == before
    assert ppo.policy.training


def test_games_can_be_ended_early(ppo: Any, tmp_path: Path) -> None:
    steps: list[int] = []

    def stop() -> None:
        steps.append(1)
        if len(steps) % 3 == 0:
            raise RuntimeError

    before = rng_states()
    with pytest.raises(RuntimeError):
        evaluate_agent(ppo, SIGNALS, on_step=stop)
    with pytest.raises(RuntimeError):
        film_agent(ppo, SIGNALS, tmp_path / "film.mp4", on_step=stop)
    assert len(steps) == 6
    assert rng_states() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_the_same_seed_gives_the_same_games(agent: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(agent)
    first = evaluate_agent(model, SIGNALS, episodes=32)
    torch.manual_seed(123)
    np.random.seed(123)
    assert evaluate_agent(model, SIGNALS, episodes=32) == first
    others = [
        evaluate_agent(model, SIGNALS, episodes=32, seed=4),
        evaluate_agent(model, SIGNALS, episodes=32, step=100),
        evaluate_agent(model, SIGNALS, episodes=32, purpose="evaluate_during_training"),
    ]
    for other in others:
        assert other.returns != first.returns


def test_games_are_not_those_of_training() -> None:
    """By the seeds of the single games, over some runs and steps."""
    trained, evaluated = set(), set()
    for seed in range(5):
        for step in (0, 10_000, 20_000):
            for purpose, seen in (("train", trained), ("evaluate_during_training", evaluated)):
                config = replace(SIGNALS, num_envs=16)
                venv = make_train_env(config)
                seen.update(venv.seed(derive_seed(seed, purpose, step)))  # type: ignore[arg-type]
                venv.close()
    assert len(trained) == len(evaluated) == 5 * 3 * 16
    assert not trained & evaluated


def test_an_evaluation_records_its_protocol(ppo: Any, dqn: Any) -> None:
    protocol = evaluate_agent(ppo, SIGNALS, seed=9).protocol
    assert protocol["name"] == "classic"
    assert protocol["max_episode_steps"] == 27_000
    # These are of the emulator, and clipped rewards of training.
    assert not {"repeat_action_probability", "noop_max", "clip_rewards"} & protocol.keys()
    assert (protocol["environments"], protocol["seed"]) == (4, 9)
    assert (protocol["deterministic"], protocol["epsilon"]) == (False, 0)
    protocol = evaluate_agent(dqn, SIGNALS).protocol
    assert (protocol["deterministic"], protocol["epsilon"]) == (False, 0.001)
    protocol = evaluate_agent(dqn, SIGNALS, deterministic=True).protocol
    assert (protocol["deterministic"], protocol["epsilon"]) == (True, 0)


# -- how agents act --------------------------------------------------------------------------------


def observations(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(batch, 2, 36, 36), dtype=np.uint8)


def test_ppo_samples_unless_deterministic(ppo: Any) -> None:
    same = np.repeat(observations(1), 400, axis=0)
    assert set(EvaluationPolicy(ppo, 1)(same)) == {0, 1, 2, 3}
    assert len(set(EvaluationPolicy(ppo, 1, deterministic=True)(same))) == 1
    player = EvaluationPolicy(ppo, 1)
    first, second = player(same), player(same)
    assert (first != second).any(), "each call draws the same numbers"
    again = EvaluationPolicy(ppo, 1)
    assert (again(same) == first).all()
    assert (again(same) == second).all()
    assert (EvaluationPolicy(ppo, 2)(same) != first).any()


def test_dqn_takes_a_random_action_now_and_then(dqn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DQN_EPSILON == 0.001
    seen = observations(2000)
    greedy, _ = dqn.predict(seen, deterministic=True)
    assert (EvaluationPolicy(dqn, 0)(seen) != greedy).mean() < 0.01
    assert (EvaluationPolicy(dqn, 0, deterministic=True)(seen) == greedy).all()
    monkeypatch.setattr(evaluation, "DQN_EPSILON", 0.4)
    actions = EvaluationPolicy(dqn, 0)(seen)
    # One in four random actions is the greedy one.
    assert (actions != greedy).mean() == pytest.approx(0.3, abs=0.05)
    assert (EvaluationPolicy(dqn, 0)(seen) == actions).all()


def test_another_protocol_keeps_the_actions_that_were_learned(invaders: Any) -> None:
    result = evaluate_agent(invaders, INVADERS, episodes=2, protocol="short sticky")
    assert result.protocol["name"] == "short sticky"
    assert result.protocol["repeat_action_probability"] == 0.25
    assert not result.protocol["full_action_space"]
    assert not {"clip_rewards", "terminal_on_life_loss"} & result.protocol.keys()
    sticky = replace(INVADERS, protocol="sticky")
    assert play_protocol(sticky).full_action_space
    classic = play_protocol(sticky, "classic")
    assert classic.full_action_space
    assert (classic.repeat_action_probability, classic.noop_max) == (0, 30)


# -- films -----------------------------------------------------------------------------------------


def test_a_film_is_of_one_whole_game_played_alike(ppo: Any, tmp_path: Path) -> None:
    ppo.policy.set_training_mode(True)
    before = rng_states()
    film = film_agent(ppo, SIGNALS, tmp_path / "a.mp4", step=1234)
    assert film.length == 8
    assert film.caption.startswith("step 1,234 | support.games:Signals-v0: return ")
    assert (tmp_path / "a.mp4").stat().st_size > 0
    assert rng_states() == before
    assert ppo.policy.training
    again = film_agent(ppo, SIGNALS, tmp_path / "b.mp4", step=1234)
    assert replace(again, path=film.path) == film


def test_a_film_is_cut_off_as_an_evaluation_is(tmp_path: Path) -> None:
    config = replace(SIGNALS, env="support.games:Endless-v0", protocol="short")
    film = film_agent(make_agent(config), config, tmp_path / "a.mp4")
    assert (film.length, film.truncated) == (100, True)
