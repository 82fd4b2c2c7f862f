"""DQN agents of tiny worlds."""

from __future__ import annotations

from typing import Any

from agents.dqn.agent import DQN
from support.toy_envs import Columns, World, WorldVecEnv

TINY = {"features_extractor_kwargs": {"encoder": "nature", "encoder_options": {"features_dim": 32}}}


def make_dqn(world: World | None = None, n_envs: int = 8, depth: int = 1, **options: Any) -> DQN:
    settings: dict[str, Any] = {
        "learning_rate": 1e-3,
        "buffer_size": 5000,
        "learning_starts": 200,
        "target_update_interval": 200,
        "exploration_fraction": 0.5,
        "policy_kwargs": TINY,
        "seed": 0,
        "device": "cpu",
    }
    venv = WorldVecEnv(world or Columns(), n_envs, depth)
    return DQN("CnnPolicy", venv, **{**settings, **options})
