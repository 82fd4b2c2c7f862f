"""What DQN minimises, by name: pure functions of a batch.

A variant is two functions and its line in :data:`OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from agents.storage.replay import ReplayBatch


class QBatch(NamedTuple):
    """What one gradient step of Q-learning takes, on the networks' device."""

    observations: torch.Tensor  # as stored, (batch, depth * channels, height, width)
    actions: torch.Tensor  # int64 (batch,)
    targets: torch.Tensor  # float32 (batch,), the values that those actions should have


def bootstrap(q_net_target: nn.Module, batch: ReplayBatch) -> QBatch:
    """Transitions with the values to learn (Mnih et al. 2015, algorithm 1).

    ``q_net_target`` maps observations as stored to Q values float32 (batch, actions), on the device
    of the transitions.
    """
    with torch.no_grad():
        next_values = q_net_target(batch.next_observations).amax(dim=1)
    return QBatch(batch.observations, batch.actions, batch.rewards + batch.discounts * next_values)


class QLoss(NamedTuple):
    """The loss of each sample, and how much its transition deserves to be replayed again."""

    loss: torch.Tensor  # float32 (batch,), with a gradient
    priorities: torch.Tensor  # float32 (batch,), from 0, without a gradient


def q_loss(q_net: nn.Module, batch: QBatch) -> QLoss:
    """Huber losses of the temporal differences (Mnih et al. 2015, "Methods").

    Priorities are the absolute differences (Schaul et al. 2016, section 3.3).

    ``q_net`` maps observations as stored to Q values float32 (batch, actions).
    """
    values = q_net(batch.observations).gather(1, batch.actions[:, None]).squeeze(1)
    losses = functional.smooth_l1_loss(values, batch.targets, reduction="none")
    return QLoss(losses, (values - batch.targets).detach().abs())


class QObjective(NamedTuple):
    """An objective, in the two parts in which it is computed."""

    # Target network and transitions -> a named tuple of tensors, all that does not depend on the
    # online network. With ``overlap`` this runs beside the previous update.
    prepare: Callable[[nn.Module, ReplayBatch], Any]
    # Online network and that named tuple -> the losses of its samples.
    loss: Callable[[nn.Module, Any], QLoss]


OBJECTIVES: Mapping[str, QObjective] = {"q": QObjective(bootstrap, q_loss)}
