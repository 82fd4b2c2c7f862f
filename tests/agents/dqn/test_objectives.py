"""Objectives of each head against references in float64, on random transitions."""

from __future__ import annotations

import copy
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from agents.dqn.losses import huber_loss, project, quantile_huber_loss
from agents.dqn.objectives import DoubleBatch, QBatch, make_objective
from agents.dqn.variant import DQNVariant
from agents.networks.head_options import HeadName
from agents.networks.heads import Head, PlainHead, make_head
from agents.storage.replay import ReplayBatch

SIZE, WIDTH, ACTIONS = 16, 5, 3
HEADS = get_args(HeadName)
SMALL: dict[str, Any] = {
    "head_units": 7,
    "quantiles": 4,
    "atoms": 6,
    "v_min": -2.0,
    "v_max": 2.0,
    "iqn_samples": 4,
    "iqn_target_samples": 6,
    "iqn_acting_samples": 8,
}


class Vectors(nn.Module):
    """A Q network whose observations are its features."""

    def __init__(self, q_net: Head) -> None:
        super().__init__()
        self.q_net = q_net

    def extract_features(self, obs: torch.Tensor) -> torch.Tensor:
        return obs


def make_networks(variant: DQNVariant) -> tuple[Vectors, Vectors]:
    """An online and a target network."""
    torch.manual_seed(0)
    if variant.plain:
        heads: list[Head] = [PlainHead(nn.Linear(WIDTH, ACTIONS)) for _ in range(2)]
    else:
        heads = [make_head(WIDTH, ACTIONS, variant) for _ in range(2)]
    return Vectors(heads[0]), Vectors(heads[1])


def make_batch() -> ReplayBatch:
    """Random transitions; a quarter of them ends."""
    draws = torch.Generator().manual_seed(0)
    observations, after = torch.randn(2, SIZE, WIDTH, generator=draws)
    return ReplayBatch(
        observations,
        actions=torch.randint(ACTIONS, (SIZE,), generator=draws),
        rewards=2 * torch.randn(SIZE, generator=draws),
        next_observations=after,
        discounts=0.99 * (torch.rand(SIZE, generator=draws) > 0.25),
        weights=torch.ones(SIZE),
        places=torch.arange(SIZE),
    )


def wide(network: Vectors) -> Vectors:
    return copy.deepcopy(network).double()


@torch.no_grad()
def reference_targets(
    variant: DQNVariant, online: Vectors, target: Vectors, batch: ReplayBatch
) -> torch.Tensor:
    """Targets sample by sample, in float64 and without randomness."""
    online, target = wide(online), wide(target)
    now, after = batch.observations.double(), batch.next_observations.double()
    values = target.q_net.outputs(after, None, variant.iqn_target_samples).values
    chooser = online if variant.double else target
    best = chooser.q_net.q_values(after).argmax(dim=1)
    here, there = (target.q_net.q_values(seen) for seen in (now, after))
    rows = []
    for i in range(SIZE):
        reward, discount = batch.rewards[i].double(), batch.discounts[i].double()
        if variant.munchausen:
            tau = variant.munchausen_tau
            log_policy = tau * torch.log_softmax(here[i] / tau, dim=0)[batch.actions[i]]
            low = max(float(log_policy), variant.munchausen_clip)
            reward = reward + variant.munchausen_alpha * low
            policy = torch.softmax(there[i] / tau, dim=0)
            logs = tau * torch.log_softmax(there[i] / tau, dim=0)
            rows.append(
                reward
                + discount * sum(policy[a] * (values[i, a] - logs[a]) for a in range(ACTIONS))
            )
        elif variant.kind == "c51":
            support = target.q_net.support
            moved = (reward + discount * support)[None]
            rows.append(project(moved, values[i, best[i]].softmax(dim=0)[None], support)[0])
        else:
            rows.append(reward + discount * values[i, best[i]])
    return torch.stack(rows)


VARIANTS = [
    *({"head": head} for head in HEADS),
    *({"head": head, "double": True} for head in HEADS),
    *({"head": head, "munchausen": True} for head in HEADS if "c51" not in head),
    # A temperature at which the policy is not greedy, and a clip that is never reached.
    {"head": "qr", "munchausen": True, "munchausen_tau": 0.5, "munchausen_clip": -9.0},
    {"head": "q", "head_units": 0, "loss": "mse"},
]


def named(options: dict[str, Any]) -> str:
    return " ".join(str(value) if key == "head" else key for key, value in options.items())


@pytest.mark.parametrize("options", VARIANTS, ids=named)
def test_targets_and_losses_are_those_of_the_reference(options: dict[str, Any]) -> None:
    variant = DQNVariant(**{**SMALL, **options})
    online, target = make_networks(variant)
    batch, objective = make_batch(), make_objective(variant)
    expected = reference_targets(variant, online, target, batch)

    learned = objective.prepare(target, batch, None)
    assert isinstance(learned, DoubleBatch if variant.double else QBatch)
    losses, priorities = objective.loss(online, learned, None)
    if not variant.double:
        torch.testing.assert_close(learned.targets.double(), expected, rtol=1e-4, atol=1e-5)

    outputs = wide(online).q_net.outputs(batch.observations.double(), None, variant.iqn_samples)
    taken = outputs.values[torch.arange(SIZE), batch.actions]
    if variant.kind == "c51":
        reference = -(expected * taken.log_softmax(dim=1)).sum(dim=1)
    elif outputs.taus is not None:
        reference = quantile_huber_loss(taken, outputs.taus, expected).loss
    elif variant.loss == "mse":
        reference = (taken - expected).squeeze(1) ** 2
    else:
        reference = huber_loss(taken, expected).loss
    torch.testing.assert_close(losses.double(), reference, rtol=1e-4, atol=1e-5)
    assert losses.shape == priorities.shape == (SIZE,)
    losses.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in online.parameters())
    assert all(p.grad is None for p in target.parameters())


def test_an_end_leaves_the_rewards_alone() -> None:
    batch = make_batch()._replace(discounts=torch.zeros(SIZE))
    for head in HEADS:
        variant = DQNVariant(**{**SMALL, "head": head})
        _, target = make_networks(variant)
        targets = make_objective(variant).prepare(target, batch, None).targets
        if variant.kind == "c51":
            assert isinstance(target.q_net.support, torch.Tensor)
            targets = (targets * target.q_net.support).sum(dim=1, keepdim=True)
        expected = batch.rewards.clamp(-2, 2) if variant.kind == "c51" else batch.rewards
        torch.testing.assert_close(targets, expected[:, None].expand_as(targets))


def test_levels_are_drawn_apart_for_targets_and_choices() -> None:
    variant = DQNVariant(**{**SMALL, "head": "iqn"})
    _, target = make_networks(variant)
    objective, batch = make_objective(variant), make_batch()

    def targets(seed: int) -> np.ndarray:
        draws = torch.Generator().manual_seed(seed)
        return objective.prepare(target, batch, draws).targets.numpy()

    assert np.array_equal(targets(1), targets(1))
    assert not np.array_equal(targets(1), targets(2))
    features, draws = batch.next_observations, torch.Generator().manual_seed(1)
    outputs = target.q_net.outputs(features, draws, variant.iqn_target_samples)
    chosen = target.q_net.q_values(features, draws).argmax(dim=1)
    values = outputs.values[torch.arange(SIZE), chosen]
    expected = batch.rewards[:, None] + batch.discounts[:, None] * values
    assert np.array_equal(targets(1), expected.detach().numpy())
