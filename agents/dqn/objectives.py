"""What DQN minimises: pure functions of networks, a batch and a random generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from agents.dqn.losses import (
    QLoss,
    categorical_loss,
    huber_loss,
    project,
    quantile_huber_loss,
    scaled_log_policy,
    squared_loss,
)
from agents.dqn.variant import DQNVariant
from agents.networks.heads import C51Head, Head, Outputs
from agents.storage.replay import ReplayBatch
from rlcnn.data.drq import drq


class QNetwork(Protocol):
    """Features of observations as stored, and the head that makes values of them."""

    @property
    def q_net(self) -> Head: ...

    def extract_features(self, obs: torch.Tensor) -> torch.Tensor: ...


class QBatch(NamedTuple):
    """What one gradient step takes, on the networks' device."""

    observations: torch.Tensor  # as stored, (batch, depth * channels, height, width)
    actions: torch.Tensor  # int64 (batch,)
    # float32 (batch, k), what those actions should have: a Q value (k = 1), quantiles, or the
    # probabilities of atoms.
    targets: torch.Tensor


class DoubleBatch(NamedTuple):
    """What one gradient step of double learning takes: the online network chooses targets."""

    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor  # float32 (batch,)
    next_observations: torch.Tensor
    discounts: torch.Tensor  # float32 (batch,)
    next_values: torch.Tensor  # float32 (batch, actions, k), the target network's outputs


class QObjective(NamedTuple):
    """An objective, in the two parts in which it is computed."""

    # Target network, transitions and generator -> a named tuple of tensors, all that does not
    # depend on the online network. With ``overlap`` this runs beside the previous update.
    prepare: Callable[[QNetwork, ReplayBatch, torch.Generator | None], Any]
    # Online network, that named tuple and another generator -> the losses of its samples.
    loss: Callable[[QNetwork, Any, torch.Generator | None], QLoss]


def make_objective(variant: DQNVariant) -> QObjective:
    """The objective of a variant."""
    if variant.munchausen:
        prepare: Callable[..., Any] = munchausen_targets
    else:
        prepare = double_parts if variant.double else greedy_targets
    if variant.augments:
        prepare = partial(augmented, prepare)
    loss = double_loss if variant.double else taken_loss
    return QObjective(partial(prepare, variant), partial(loss, variant))


def augmented(
    prepare: Callable[..., Any],
    variant: DQNVariant,
    target: QNetwork,
    batch: ReplayBatch,
    generator: torch.Generator | None = None,
) -> Any:
    """What ``prepare`` makes of a batch whose observations :func:`drq` augments."""
    changed = [drq(images, generator) for images in (batch.observations, batch.next_observations)]
    batch = batch._replace(observations=changed[0], next_observations=changed[1])
    return prepare(variant, target, batch, generator)


@torch.no_grad()
def greedy_targets(
    variant: DQNVariant,
    target: QNetwork,
    batch: ReplayBatch,
    generator: torch.Generator | None = None,
) -> QBatch:
    """Targets of the action that the target network values most (Mnih et al. 2015, algorithm 1)."""
    head = target.q_net
    features = target.extract_features(batch.next_observations)
    outputs = head.outputs(features, generator, variant.iqn_target_samples)
    best = head.selection_values(features, outputs, generator).argmax(dim=1)
    next_values = values_of(outputs.values, best)
    targets = back_up(head, next_values, batch.rewards, batch.discounts)
    return QBatch(batch.observations, batch.actions, targets)


@torch.no_grad()
def double_parts(
    variant: DQNVariant,
    target: QNetwork,
    batch: ReplayBatch,
    generator: torch.Generator | None = None,
) -> DoubleBatch:
    """What the target network contributes to double learning."""
    features = target.extract_features(batch.next_observations)
    outputs = target.q_net.outputs(features, generator, variant.iqn_target_samples)
    return DoubleBatch(
        batch.observations,
        batch.actions,
        batch.rewards,
        batch.next_observations,
        batch.discounts,
        outputs.values,
    )


@torch.no_grad()
def munchausen_targets(
    variant: DQNVariant,
    target: QNetwork,
    batch: ReplayBatch,
    generator: torch.Generator | None = None,
) -> QBatch:
    """Soft targets, with the scaled log-policy in the reward (Vieillard et al. 2020, equation 1).

    The policy is the softmax of the target network's Q values, of quantiles their means (section 4,
    "M-IQN"). In an n-step window the first action's log-policy alone is added, as in the code of
    BTR (Clark et al. 2025).
    """
    head, tau = target.q_net, variant.munchausen_tau
    values = head.q_values(target.extract_features(batch.observations), generator)
    log_policy = scaled_log_policy(values, tau).gather(1, batch.actions[:, None]).squeeze(1)
    bonus = variant.munchausen_alpha * log_policy.clamp(variant.munchausen_clip, 0)

    features = target.extract_features(batch.next_observations)
    outputs = head.outputs(features, generator, variant.iqn_target_samples)
    next_log_policy = scaled_log_policy(
        head.selection_values(features, outputs, generator), tau
    ).unsqueeze(2)
    policy = (next_log_policy / tau).exp()
    soft_values = (policy * (outputs.values - next_log_policy)).sum(dim=1)
    targets = back_up(head, soft_values, batch.rewards + bonus, batch.discounts)
    return QBatch(batch.observations, batch.actions, targets)


def taken_loss(
    variant: DQNVariant,
    online: QNetwork,
    batch: QBatch,
    generator: torch.Generator | None = None,
) -> QLoss:
    """Losses of what the online network computes of the actions that were taken."""
    head = online.q_net
    features = online.extract_features(batch.observations)
    outputs = head.outputs(features, generator, variant.iqn_samples)
    predicted = Outputs(values_of(outputs.values, batch.actions), outputs.taus)
    if isinstance(head, C51Head):
        return categorical_loss(predicted.values, batch.targets)
    if predicted.taus is not None:
        return quantile_huber_loss(predicted.values, predicted.taus, batch.targets)
    loss = squared_loss if variant.loss == "mse" else huber_loss
    return loss(predicted.values, batch.targets)


def double_loss(
    variant: DQNVariant,
    online: QNetwork,
    batch: DoubleBatch,
    generator: torch.Generator | None = None,
) -> QLoss:
    """Losses where the online network chooses the next action (van Hasselt et al. 2016, eq. 4)."""
    with torch.no_grad():
        features = online.extract_features(batch.next_observations)
        best = online.q_net.q_values(features, generator).argmax(dim=1)
        next_values = values_of(batch.next_values, best)
        targets = back_up(online.q_net, next_values, batch.rewards, batch.discounts)
    return taken_loss(
        variant, online, QBatch(batch.observations, batch.actions, targets), generator
    )


def back_up(
    head: Head, next_values: torch.Tensor, rewards: torch.Tensor, discounts: torch.Tensor
) -> torch.Tensor:
    """Targets, float32 (batch, k), of a head's outputs for the next states, float32 (batch, k)."""
    if isinstance(head, C51Head):
        returns = rewards[:, None] + discounts[:, None] * head.support
        return project(returns, next_values.softmax(dim=1), head.support)
    return rewards[:, None] + discounts[:, None] * next_values


def values_of(values: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Of float32 (batch, actions, k), those of one action each, float32 (batch, k)."""
    places = actions[:, None, None].expand(-1, 1, values.shape[2])
    return values.gather(1, places).squeeze(1)
