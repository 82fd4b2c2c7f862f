"""The Q update as plain functions over a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from agents.storage.replay import ReplayBatch
from rlcnn.accelerate.cuda_graphs import steps_capturable


class QBatch(NamedTuple):
    """What one gradient step takes, on the networks' device."""

    observations: torch.Tensor  # as stored, (batch, depth * channels, height, width)
    actions: torch.Tensor  # int64 (batch,)
    targets: torch.Tensor  # float32 (batch,), the values that those actions should have


def bootstrap(q_net_target: nn.Module, batch: ReplayBatch) -> QBatch:
    """Transitions with the values to learn (Mnih et al. 2015, algorithm 1).

    Args:
        q_net_target: uint8 observations -> Q values float32 (batch, actions).
        batch: transitions on the network's device.
    """
    with torch.no_grad():
        next_values = q_net_target(batch.next_observations).amax(dim=1)
    return QBatch(batch.observations, batch.actions, batch.rewards + batch.discounts * next_values)


def q_loss(q_net: nn.Module, batch: QBatch) -> torch.Tensor:
    """Huber loss of the temporal differences (Mnih et al. 2015, "Methods").

    Args:
        q_net: uint8 observations -> Q values float32 (batch, actions).
        batch: what to learn from.

    Returns:
        The mean over the batch, float32 scalar.
    """
    values = q_net(batch.observations).gather(1, batch.actions[:, None]).squeeze(1)
    return functional.smooth_l1_loss(values, batch.targets)


def q_update(
    q_net: nn.Module, optimizer: torch.optim.Optimizer, batch: QBatch, max_grad_norm: float
) -> torch.Tensor:
    """One gradient step on ``q_loss``, which is returned, without waiting for the device."""
    loss = q_loss(q_net, batch)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(q_net.parameters(), max_grad_norm)
    with steps_capturable(optimizer):
        optimizer.step()
    return loss.detach()
