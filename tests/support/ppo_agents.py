"""PPO agents of tiny worlds."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from agents.ppo.agent import PPO
from support.toy_envs import Columns, World, WorldVecEnv

TINY = {"features_extractor_kwargs": {"encoder": "lenet", "encoder_options": {"features_dim": 32}}}


def make_ppo(world: World | None = None, n_envs: int = 8, depth: int = 1, **options: Any) -> PPO:
    settings: dict[str, Any] = {
        "n_steps": 8,
        "batch_size": 32,
        "n_epochs": 2,
        "policy_kwargs": TINY,
        "seed": 0,
        "device": "cpu",
    }
    venv = WorldVecEnv(world or Columns(), n_envs, depth)
    return PPO("CnnPolicy", venv, **{**settings, **options})


class StopAt(BaseCallback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self.step
