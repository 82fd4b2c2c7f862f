"""PPO's specification, through which the rest of the project uses it."""

from __future__ import annotations

from typing import Any

import stable_baselines3
import torch

from agents.algorithm import ActionScores, AlgorithmSpec
from agents.ppo.agent import PPO
from agents.ppo.config import PPOConfig
from agents.storage.rollout import FrameRollout


class PPOSpec(AlgorithmSpec[PPO]):
    """Proximal policy optimisation."""

    name = "ppo"
    agent = PPO
    section = PPOConfig
    baseline = stable_baselines3.PPO
    log_interval = 1
    on_policy = True
    groups = True
    compiles = True

    def action_scores(self, model: PPO, observations: torch.Tensor) -> ActionScores:
        logits, values = model.policy.logits_and_values(observations)
        return ActionScores(logits.log_softmax(dim=1), values)

    def storage(self, model: PPO) -> FrameRollout:
        return model.rollout_buffer

    def storage_bytes(self, model: PPO) -> int:
        return model.rollout_bytes

    def training_state(self, model: PPO) -> dict[str, Any]:
        return {"adapted_rate": model.adapted_rate}

    def restore_training_state(self, model: PPO, state: dict[str, Any]) -> None:
        if model.kl_threshold is not None:
            model.adapted_rate = float(state["adapted_rate"])

    def notes_on_graphs(self, model: PPO) -> list[str]:
        if model.target_kl is None:
            return []
        return [
            "--ppo.target-kl waits for the GPU after each minibatch: the update is not captured as"
            " a CUDA graph"
        ]
