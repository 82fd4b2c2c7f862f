"""What DQN logs and refuses, and the replay that it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger, make_output_format
from stable_baselines3.common.vec_env import VecNormalize
from support.dqn_agents import TINY, make_dqn
from support.toy_envs import Columns, WorldVecEnv

from agents.dqn.agent import DQN
from agents.networks.head_options import HeadOptions
from envs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_loss_that_is_no_number_stops_training_in_one_line() -> None:
    model = make_dqn(learning_rate=1e30, learning_starts=0)
    with pytest.raises(UserError, match=r"^the loss became nan by step \d+"):
        model.learn(400)
    model = make_dqn(learning_starts=0)
    next(model.q_net.parameters()).data[0] = float("nan")
    model._setup_learn(100)
    with pytest.raises(UserError, match="the loss became nan by step 0"):
        model.check_finite()


def test_the_log_holds_the_mean_loss_and_the_counters(tmp_path: Path) -> None:
    model = make_dqn(learning_starts=0)
    model.set_logger(Logger(str(tmp_path), [make_output_format("csv", str(tmp_path))]))
    model.learn(200)
    header, *rows = (tmp_path / "progress.csv").read_text().splitlines()
    columns = set(header.split(","))
    assert {"train/loss", "train/n_updates", "train/learning_rate"} <= columns
    assert {"rollout/exploration_rate", "rollout/ep_rew_mean", "time/fps"} <= columns
    # All environments end together after 8 steps each: twice as many games as between two logs, and
    # still one row for the step.
    assert len(rows) == 200 // (8 * model.n_envs)
    step = header.split(",").index("time/total_timesteps")
    assert len({row.split(",")[step] for row in rows}) == len(rows)


class Vector(gym.Env):  # type: ignore[type-arg]
    """Observations that are no images."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)


class Continuous(gym.Env):  # type: ignore[type-arg]
    """Actions that are not discrete."""

    observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    action_space = spaces.Box(-1, 1, (2,), np.float32)


class Several(gym.Env):  # type: ignore[type-arg]
    """A dictionary of observations."""

    observation_space = spaces.Dict({"image": Continuous.observation_space})
    action_space = spaces.Discrete(2)


@pytest.mark.parametrize(
    "make, line",
    [
        (lambda: DQN("CnnPolicy", Vector()), "observations must be uint8 images"),
        (lambda: DQN("CnnPolicy", Several()), "observations must be uint8 images"),
        (lambda: DQN("CnnPolicy", Continuous()), "actions must be Discrete"),
        (
            lambda: DQN("CnnPolicy", VecNormalize(WorldVecEnv(Columns()), norm_obs=False)),
            "VecNormalize is not supported for DQN",
        ),
        (lambda: make_dqn(replay_buffer_class=ReplayBuffer), "replay_buffer_class is not"),
        (lambda: make_dqn(replay_buffer_kwargs={"x": 1}), "replay_buffer_class is not"),
        (lambda: make_dqn(optimize_memory_usage=True), "optimize_memory_usage is not needed"),
        (lambda: make_dqn(train_freq=(1, "episode")), "train_freq in episodes is not supported"),
        (lambda: make_dqn(head="duelling"), 'head "duelling" is unknown: expected one of q, duel'),
        (lambda: make_dqn(doubel=True), 'DQN has no argument "doubel". Did you mean "double"?'),
        (lambda: make_dqn(double="yes"), "double must be like False, not 'yes'"),
        (lambda: make_dqn(quantiles=True), "quantiles must be like 200, not True"),
        (lambda: make_dqn(head="qr", loss="mse"), "loss mse is for heads of Q values"),
        (lambda: make_dqn(head="c51", munchausen=True), "munchausen is not defined for head c51"),
        (lambda: make_dqn(double=True, munchausen=True), "munchausen has no greedy action"),
        (lambda: make_dqn(v_min=1.0, v_max=-1.0), "v_min 1 must be below v_max -1"),
        (lambda: make_dqn(head="c51", v_max=float("inf")), "^v_max inf is not usable: expected 0"),
        (
            lambda: make_dqn(head="iqn", policy_kwargs={**TINY, "net_arch": [8]}),
            r"net_arch \[8\] is for head q without noise",
        ),
        (
            lambda: make_dqn(policy_kwargs={**TINY, "head": HeadOptions()}),
            "policy_kwargs must not have head",
        ),
        (
            lambda: make_dqn(adam_eps=1e-4, policy_kwargs={**TINY, "optimizer_kwargs": {}}),
            "adam_eps 0.0001 is for the default optimizer",
        ),
        (lambda: make_dqn(train_freq=0), "train_freq must be at least 1, not 0"),
        (lambda: make_dqn(batch_size=0), "batch_size must be at least 1, not 0"),
        (lambda: make_dqn(n_steps=0), "n_steps must be at least 1, not 0"),
        (lambda: make_dqn(gradient_steps=-2), "gradient_steps must be at least -1, not -2"),
        (lambda: make_dqn(learning_starts=-1), "learning_starts must be at least 0, not -1"),
        (lambda: make_dqn(buffer_size=7).learn(8), "buffer_size 7 has no room"),
        (lambda: make_dqn(replay_device="gpu").learn(8), 'not on "gpu"'),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(make: Callable[[], Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_a_replay_that_does_not_fit_is_refused_before_learning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rlcnn.accelerate.memory.available_memory", lambda device: 10**9)
    model = make_dqn(buffer_size=1_000_000)
    with pytest.raises(UserError, match=r"a replay of 1,000,000 transitions needs 1\.\d\d GB on"):
        model.learn(8)
    assert model.num_timesteps == 0


def test_windows_are_no_longer_than_the_replay() -> None:
    model = make_dqn(n_steps=10**15, buffer_size=80, learning_starts=8)
    model.learn(16)
    assert model._learner.returns.n_steps == 10


def test_parts_cannot_change_when_an_agent_is_loaded(tmp_path: Path) -> None:
    make_dqn(head="iqn").save(tmp_path / "agent.zip")
    for change in ({"head": "q"}, {"double": True}):
        with pytest.raises(UserError, match=f"{next(iter(change))} cannot change when an agent is"):
            DQN.load(tmp_path / "agent.zip", **change)
    assert DQN.load(tmp_path / "agent.zip", gamma=0.5).gamma == 0.5


def test_memory_is_taken_only_when_learning_starts() -> None:
    model = make_dqn(buffer_size=10**15)
    assert model.replay_buffer is None
    model.predict(np.zeros((1, 1, 36, 36), np.uint8))


def test_it_samples_from_the_replay_that_it_is_given() -> None:
    giver = make_dqn(n_envs=2, learning_starts=8)
    giver.learn(32)
    stored = giver.replay_buffer
    assert stored is not None
    new, experienced = make_dqn(n_envs=2, learning_starts=8), make_dqn(n_envs=2, learning_starts=8)
    experienced.learn(8)
    for taker in (new, experienced):
        held = stored.pos
        taker.replay_buffer = stored
        taker.learn(8, reset_num_timesteps=taker is new)
        assert taker._learner.replay is taker._actor._replay is stored
        # The transition before the taker's first is cut off: its own observations follow.
        assert stored.pos == held + 4
        assert (stored.truncated | stored.terminated)[held - 1].all()
        stored.check_valid()


def test_a_replay_that_does_not_fit_is_refused() -> None:
    taker = make_dqn(n_envs=2)
    taker.replay_buffer = make_dqn(n_envs=1).setup_replay()
    with pytest.raises(UserError, match="is for 1 environments in parallel, the agent has 2"):
        taker.learn(8)
    taker.replay_buffer = ReplayBuffer(8, taker.observation_space, taker.action_space)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"the replay of an agents.DQN, not ReplayBuffer"):
        taker.learn(8)
