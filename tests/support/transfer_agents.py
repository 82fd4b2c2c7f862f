"""Agents with a pretrained encoder that is trained, fine-tuned or frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.train.checkpoint import encoder_extractor
from support.toy_envs import Columns, WorldVecEnv

N_ENVS, DEPTH = 4, 2
ROLLOUT = 4 * 8
LENET = {"encoder": "lenet", "encoder_options": {"features_dim": 8}}
# With BatchNorm, before which stacks are one image.
RESIDUAL = {"encoder": "cifar_resnet", "encoder_options": {"depth": 8}}
# Which sees each frame alone.
PER_FRAME = {
    "encoder": "squeezenet1_1:features.3",
    "encoder_options": {"pooling": "mean", "features_dim": 8},
}
BOTH = pytest.mark.parametrize("algorithm", [PPO, DQN])
Algorithm = type[PPO] | type[DQN]


def make(
    algorithm: Algorithm, extractor: dict[str, Any], venv: Any = None, seed: int = 0, **policy: Any
) -> Any:
    options: dict[str, Any] = {
        PPO: {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
        DQN: {"buffer_size": 400, "learning_starts": 16, "batch_size": 8},
    }[algorithm]
    model = algorithm(
        "CnnPolicy",
        venv or WorldVecEnv(Columns(1), N_ENVS, depth=DEPTH),
        learning_rate=1e-2,
        policy_kwargs={"features_extractor_kwargs": extractor, **policy},
        seed=seed,
        device="cpu",
        **options,
    )
    model.set_logger(Logger(None, []))
    return model


def encoder_of(model: Any) -> Any:
    extractor = encoder_extractor(model)
    assert extractor is not None
    return extractor.encoder


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    """All that weights are loaded for, running statistics included."""
    parts = torch.nn.ModuleList(encoder_of(model).pretrained_parts())
    return {name: tensor.clone() for name, tensor in parts.state_dict().items()}


def stored_by(model: Any) -> Any:
    return model.setup_replay().codec if isinstance(model, DQN) else model.rollout_buffer.codec


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


class EachUpdate(BaseCallback):
    """Calls a function at every step at which updates may have been made since the last one."""

    def __init__(self, look: Callable[[int], None]) -> None:
        super().__init__()
        self.look = look

    def _on_rollout_start(self) -> None:
        self.look(self.num_timesteps)

    def _on_step(self) -> bool:
        return True
