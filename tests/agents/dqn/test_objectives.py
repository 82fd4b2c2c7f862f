"""Objectives against references in float64."""

from __future__ import annotations

import torch
from torch import nn

from agents.dqn.objectives import bootstrap, q_loss
from agents.storage.replay import ReplayBatch


def make_batch(size: int = 16, actions: int = 3) -> ReplayBatch:
    """Random transitions of vectors; a quarter of them ends."""
    draws = torch.Generator().manual_seed(0)
    observations, after = torch.randn(2, size, 5, generator=draws)
    chosen = torch.randint(actions, (size,), generator=draws)
    rewards = 3 * torch.randn(size, generator=draws)
    discounts = 0.99 * (torch.rand(size, generator=draws) > 0.25)
    return ReplayBatch(observations, chosen, rewards, after, discounts)


def test_the_huber_losses_are_those_of_mnih_et_al() -> None:
    torch.manual_seed(0)
    online, target, batch = nn.Linear(5, 3), nn.Linear(5, 3), make_batch()
    losses, priorities = q_loss(online, bootstrap(target, batch))
    with torch.no_grad():
        after = target.double()(batch.next_observations.double()).amax(dim=1)
        values = online.double()(batch.observations.double())
    targets = batch.rewards.double() + batch.discounts.double() * after
    errors = [(targets[i] - values[i, batch.actions[i]]).abs().item() for i in range(16)]
    expected = [0.5 * error**2 if error < 1 else error - 0.5 for error in errors]
    torch.testing.assert_close(losses.tolist(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(priorities.tolist(), errors, rtol=1e-5, atol=1e-6)
    assert losses.requires_grad
    assert not priorities.requires_grad
