"""QR-DQN against sb3-contrib's, which only this test needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from support.dqn_agents import make_dqn
from support.toy_envs import Columns, WorldVecEnv

from agents.storage.replay import ReplayBatch

sb3_contrib = pytest.importorskip("sb3_contrib")
pytestmark = pytest.mark.usefixtures("one_thread")
QUANTILES, ACTIONS = 8, 4


def sb3_samples(batch: ReplayBatch, gamma: float) -> ReplayBufferSamples:
    terminal = batch.discounts == 0
    discounts = torch.where(terminal, torch.tensor(gamma), batch.discounts)
    return ReplayBufferSamples(
        batch.observations,
        batch.actions[:, None],
        batch.next_observations,
        terminal.float()[:, None],
        batch.rewards[:, None],
        discounts[:, None],
    )


def in_our_order(tensors: Any) -> list[torch.Tensor]:
    """Of tensors of sb3-contrib's network; there the last layer has quantiles before actions."""
    *others, weight, bias = tensors
    last = (t.unflatten(0, (QUANTILES, ACTIONS)).transpose(0, 1) for t in (weight, bias))
    return [*others, *(t.flatten(0, 1) for t in last)]


@pytest.mark.parametrize("n_steps", [1, 3])
def test_an_update_equals_sb3_contribs_on_the_same_batch(n_steps: int) -> None:
    # Adam's first steps are as long as the learning rate, whatever the gradient.
    policy: dict[str, Any] = {"optimizer_class": torch.optim.SGD}
    options: dict[str, Any] = {"learning_rate": 0.1, "max_grad_norm": 1e9, "device": "cpu"}
    options |= {"seed": 0, "n_steps": n_steps, "target_update_interval": 10_000}
    ours = make_dqn(depth=4, head="qr", quantiles=QUANTILES, policy_kwargs=policy, **options)
    venv = WorldVecEnv(Columns(), 8, 4)
    theirs = sb3_contrib.QRDQN(
        "CnnPolicy",
        venv,
        buffer_size=80,
        policy_kwargs={**policy, "n_quantiles": QUANTILES},
        **options,
    )
    pairs = ((ours.q_net, theirs.quantile_net), (ours.q_net_target, theirs.quantile_net_target))
    with torch.no_grad():
        for mine, other in pairs:
            # Two networks that differ.
            for parameter in other.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            copies = zip(mine.parameters(), in_our_order(other.parameters()), strict=True)
            for parameter, value in copies:
                parameter.copy_(value)
    ours.learn(200)  # Random steps only: they fill the replay.
    assert ours.replay_buffer is not None
    batch = ours.replay_buffer.sample(32, ours._learner.returns)
    ours.replay_buffer.sample = lambda *_: batch  # type: ignore[assignment,method-assign]
    samples = sb3_samples(batch, ours.gamma)
    theirs.replay_buffer.sample = lambda *_, **__: samples
    theirs._setup_learn(200)
    ours.loss_sum.zero_()
    for model in (ours, theirs):
        model.train(1, 32)
    loss = theirs.logger.name_to_value["train/loss"]
    torch.testing.assert_close(ours.loss_sum[0].item(), float(loss), rtol=1e-5, atol=1e-6)
    gradients = in_our_order([p.grad for p in theirs.quantile_net.parameters()])
    for mine, other in zip(ours.q_net.parameters(), gradients, strict=True):
        assert mine.grad is not None
        assert mine.grad.abs().max() > 0
        torch.testing.assert_close(mine.grad, other, rtol=1e-4, atol=1e-6)
