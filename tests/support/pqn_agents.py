"""PQN agents of tiny worlds."""

from __future__ import annotations

from typing import Any

from agents.pqn.agent import PQN
from support.toy_envs import Columns, World, WorldVecEnv

TINY = {"features_extractor_kwargs": {"encoder": "nature", "encoder_options": {"features_dim": 32}}}


def make_pqn(world: World | None = None, n_envs: int = 8, depth: int = 1, **options: Any) -> PQN:
    settings: dict[str, Any] = {
        "n_steps": 8,
        "batch_size": 32,
        "policy_kwargs": TINY,
        "seed": 0,
        "device": "cpu",
    }
    venv = options.pop("env", None) or WorldVecEnv(world or Columns(), n_envs, depth)
    return PQN("CnnPolicy", venv, **{**settings, **options})
