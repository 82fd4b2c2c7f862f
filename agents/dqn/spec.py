"""DQN's specification, through which the rest of the project uses it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import stable_baselines3
import torch
from torch import nn

from agents.algorithm import AlgorithmSpec
from agents.collect.exploration import (
    exploration_state,
    notes_on_exploration,
    restore_exploration,
)
from agents.dqn.agent import DQN
from agents.dqn.config import DQNConfig
from agents.hyperparameters import Hyperparameters
from agents.storage.replay import FrameReplay


class DQNSpec(AlgorithmSpec[DQN]):
    """Deep Q-learning."""

    name = "dqn"
    agent = DQN
    section = DQNConfig
    baseline = stable_baselines3.DQN
    log_interval = 4
    replay = True
    action_values = True

    def encoder_options(
        self, section: Hyperparameters, encoder: str, weights: str
    ) -> dict[str, Any]:
        assert isinstance(section, DQNConfig)
        return section.encoder_options(encoder, weights)

    def notes_on_encoder(self, encoder: str, options: Mapping[str, Any]) -> list[str]:
        """A line where the encoder has statistics that DQN does not update."""
        if options.get("input_norm", "none") == "none":
            return []
        return [
            "DQN does not update the statistics of --encoder-options input_norm running: they stay"
            " those of --weights, and without weights pixels are only scaled"
        ]

    def trained_network(self, model: DQN) -> nn.Module:
        return model.q_net

    def storage(self, model: DQN) -> FrameReplay:
        return model.setup_replay()

    def load_replay(self, model: DQN, path: Path) -> None:
        model.load_replay_buffer(path)
        # Now, while a refusal leaves the run as it is.
        model.check_replay_encoder()

    def training_state(self, model: DQN) -> dict[str, Any]:
        return {
            **exploration_state(model),
            "draws": model.draws.state(),
            "losses": [*model.loss_sum.tolist(), model.loss_count],
        }

    def restore_training_state(self, model: DQN, state: dict[str, Any]) -> None:
        """Takes over what :meth:`training_state` returned; epsilon never rises again."""
        restore_exploration(model, state)
        # Older checkpoints hold none, and had nothing that draws.
        model.draws.restore(state.get("draws", []))
        *sums, model.loss_count = state["losses"]
        # An older checkpoint has no gradient norms.
        model.loss_sum.copy_(torch.tensor([*sums, 0.0][:2]))

    def notes_on_resume(self, model: DQN, total_steps: int) -> list[str]:
        """A line where the schedule of a longer run would raise epsilon."""
        return notes_on_exploration(model, total_steps)

    def notes_on_graphs(self, model: DQN) -> list[str]:
        if self.storage(model).device.type != "cpu":
            return []
        return [
            "the replay is on the host: storing and sampling are not captured as CUDA graphs"
            " (--replay-device cuda, a smaller --dqn.buffer-size)"
        ]
