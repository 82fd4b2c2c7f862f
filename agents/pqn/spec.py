"""PQN's specification, through which the rest of the project uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from agents.algorithm import AlgorithmSpec
from agents.collect.exploration import (
    exploration_state,
    notes_on_exploration,
    restore_exploration,
)
from agents.hyperparameters import Hyperparameters
from agents.pqn.agent import PQN
from agents.pqn.config import PQNConfig
from agents.pqn.encoders import default_encoder_options, notes_on_encoder
from agents.storage.rollout import FrameRollout


class PQNSpec(AlgorithmSpec[PQN]):
    """Parallelised Q-network."""

    name = "pqn"
    agent = PQN
    section = PQNConfig
    log_interval = 1
    on_policy = True
    groups = True
    compiles = True
    action_values = True

    def trained_network(self, model: PQN) -> nn.Module:
        return model.policy.q_net

    def storage(self, model: PQN) -> FrameRollout:
        return model.rollout_buffer

    def storage_bytes(self, model: PQN) -> int:
        return model.rollout_bytes

    def training_state(self, model: PQN) -> dict[str, Any]:
        return exploration_state(model)

    def restore_training_state(self, model: PQN, state: dict[str, Any]) -> None:
        """Takes over what :meth:`training_state` returned; epsilon never rises again."""
        restore_exploration(model, state)

    def notes_on_resume(self, model: PQN, total_steps: int) -> list[str]:
        """A line where the schedule of a longer run would raise epsilon."""
        return notes_on_exploration(model, total_steps)

    def encoder_options(
        self, section: Hyperparameters, encoder: str, weights: str
    ) -> dict[str, Any]:
        return default_encoder_options(encoder, weights)

    def notes_on_encoder(self, encoder: str, options: Mapping[str, Any]) -> list[str]:
        return notes_on_encoder(encoder, options)
