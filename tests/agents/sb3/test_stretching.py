"""Observations declared as 0..1 are learned from as well as those declared as 0..255."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from rich.console import Console
from stable_baselines3.common.vec_env import DummyVecEnv
from support.games import SIZE, Signals
from support.tiny_agents import TINY

from agents import DQN, PPO, load_agent
from agents.config import DQNConfig
from agents.train.training import train
from envs import PixelVecEnv, UserError, make_vec_env
from rlcnn.runs.directory import RunDirectory


class Bits(Signals):
    """The signals, as a grid of zeros and ones."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 1, (SIZE, SIZE), np.uint8)

    def _show(self) -> np.ndarray:
        return super()._show() // 255


class Channels(Bits):
    """The same in the layout that plain vectors of environments have."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 1, (1, SIZE, SIZE), np.uint8)

    def _show(self) -> np.ndarray:
        return Signals._show(self) // 255


@pytest.fixture
def bits() -> Iterator[str]:
    gym.register("Bits-v0", Bits)
    yield "Bits-v0"
    del gym.registry["Bits-v0"]


@pytest.mark.slow
def test_a_world_of_zeros_and_ones_is_solved(bits: str, tmp_path: Path) -> None:
    config = replace(
        TINY,
        env=bits,
        algo="dqn",
        num_envs=4,
        frame_stack=1,
        total_steps=1024,
        checkpoint_every=0,
        seed=1,
        eval_episodes=16,
        dqn=DQNConfig(
            learning_starts=200,
            buffer_size=2000,
            learning_rate=1e-4,
            gamma=0.5,
            target_update_interval=100,
            exploration_fraction=0.5,
        ),
    )
    run = train(config, tmp_path / "run", console=Console(file=io.StringIO()))
    summary = RunDirectory.open(run).summary()
    assert summary is not None
    # Eight signals are worth 2 each, and chance earns 4 of 16. Taken for shades of 255, the bits
    # earned 8 in so many steps.
    assert summary["eval"]["mean_return"] > 14
    agent = load_agent(run)
    venv = make_vec_env(bits, 8, obs_size=SIZE, frame_stack=1, seed=1)
    observations, total = venv.reset(), 0.0
    for _ in range(8):
        actions, _ = agent.predict(observations, deterministic=True)
        observations, rewards, _, _ = venv.step(actions)
        total += rewards.sum()
    assert total / 8 > 14


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_plain_vectors_of_other_bounds_are_refused(algorithm: type[PPO | DQN]) -> None:
    with pytest.raises(UserError, match=r"declared as 0\.\.1: expected 0\.\.255.*PixelVecEnv"):
        algorithm("CnnPolicy", DummyVecEnv([Channels]))
    mixed = Channels()
    mixed.observation_space = spaces.Box(0, np.resize([1, 255], (1, SIZE, SIZE)), dtype=np.uint8)
    with pytest.raises(UserError, match="declared as bounds that differ from pixel to pixel: exp"):
        algorithm("CnnPolicy", DummyVecEnv([lambda: mixed]))
    venv = PixelVecEnv([Channels], obs_size=SIZE, frame_stack=1)
    algorithm("CnnPolicy", venv)
