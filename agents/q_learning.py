"""The Q update as plain functions over a batch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from agents.replay import ReplayBatch


def q_loss(q_net: nn.Module, q_net_target: nn.Module, batch: ReplayBatch) -> torch.Tensor:
    """Huber loss of the temporal differences (Mnih et al. 2015, algorithm 1 and "Methods").

    Args:
        q_net: uint8 observations -> Q values float32 (batch, actions).
        q_net_target: likewise, with the parameters that the targets are made of.
        batch: transitions on the networks' device.

    Returns:
        The mean over the batch, float32 scalar.
    """
    with torch.no_grad():
        next_values = q_net_target(batch.next_observations).amax(dim=1)
        targets = batch.rewards + batch.discounts * next_values
    values = q_net(batch.observations).gather(1, batch.actions[:, None]).squeeze(1)
    return functional.smooth_l1_loss(values, targets)


def q_update(
    q_net: nn.Module,
    q_net_target: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: ReplayBatch,
    max_grad_norm: float,
) -> torch.Tensor:
    """One gradient step on ``q_loss``, which is returned, without waiting for the device."""
    loss = q_loss(q_net, q_net_target, batch)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(q_net.parameters(), max_grad_norm)
    optimizer.step()
    return loss.detach()
