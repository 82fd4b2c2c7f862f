"""Agents that learn from random images, ours and stable-baselines3's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.vec_env import (
    VecEnv,
)
from stable_baselines3.dqn.policies import CnnPolicy

from agents.dqn.agent import DQN
from agents.networks.policies import PixelActorCriticPolicy, PixelDQNPolicy
from agents.ppo.agent import PPO

SIZE = 40
LENET: dict[str, Any] = {
    "features_extractor_kwargs": {"encoder": "lenet", "encoder_options": {"features_dim": 16}}
}
OPTIONS: dict[Any, dict[str, Any]] = {
    PPO: {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    DQN: {"buffer_size": 200, "learning_starts": 8, "batch_size": 8, "train_freq": 4},
}
THEIRS: dict[Any, Any] = {PPO: SB3PPO, DQN: SB3DQN}
CNN: dict[Any, Any] = {PPO: ActorCriticCnnPolicy, DQN: CnnPolicy}
OURS: dict[Any, Any] = {PPO: PixelActorCriticPolicy, DQN: PixelDQNPolicy}
LEARNED = 32

both = pytest.mark.parametrize("algorithm", [PPO, DQN])


def image_env(size: int = SIZE) -> FakeImageEnv:
    """Random grey images, channels last, as stable-baselines3's own tests have them."""
    return FakeImageEnv(screen_height=size, screen_width=size, n_channels=1, discrete=True)


def images(n_envs: int = 2, size: int = SIZE) -> VecEnv:
    """Such images of several environments."""
    return make_vec_env(lambda: image_env(size), n_envs, seed=0)


def make(algorithm: Any, policy: Any = "CnnPolicy", env: Any = None, **options: Any) -> Any:
    settings = OPTIONS[PPO if algorithm in (PPO, SB3PPO) else DQN]
    options = {"policy_kwargs": LENET, "device": "cpu", "seed": 0, **settings, **options}
    return algorithm(policy, images() if env is None else env, **options)


def learn(model: Any) -> None:
    """Trains, and checks that the policy changed and is finite."""
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(LEARNED)
    after = list(model.policy.parameters())
    assert model.num_timesteps == LEARNED
    assert all(parameter.isfinite().all() for parameter in after)
    assert not all(map(torch.equal, before, after))
