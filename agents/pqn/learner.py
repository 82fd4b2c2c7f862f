"""PQN's update."""

from __future__ import annotations

import torch

from agents.on_policy.learner import RolloutLearner
from agents.pqn.objective import METRICS, q_lambda_loss
from agents.pqn.policy import PixelPQNPolicy
from agents.storage.rollout import RolloutBatch


class PQNLearner(RolloutLearner):
    """Learns Q values from rollouts."""

    metrics = METRICS
    policy: PixelPQNPolicy

    def loss(self, batch: RolloutBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return q_lambda_loss(self.policy.q_net, batch)
