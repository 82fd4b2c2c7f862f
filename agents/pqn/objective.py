"""What PQN minimises: a pure function of a minibatch."""

from __future__ import annotations

import torch
from torch import nn

from agents.storage.rollout import RolloutBatch

METRICS = ("loss", "q_value")


def q_lambda_loss(q_net: nn.Module, batch: RolloutBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the mean squared distance of Q values from lambda returns, and :data:`METRICS`.

    Gallici et al. 2024, equation 12. The returns are those of the batch: with the greatest Q values
    as values, generalised advantages plus values are Q-learning's lambda returns
    (:meth:`~agents.storage.rollout.FrameRollout.compute_returns_and_advantage`).

    ``q_net`` maps observations as stored to Q values float32 (batch, actions).
    """
    values = q_net(batch.observations).gather(1, batch.actions[:, None]).squeeze(1)
    loss = 0.5 * (values - batch.returns).square().mean()
    return loss, torch.stack([loss, values.mean()]).detach()
