"""A gradient step: its parts in order, and when it can be captured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlcnn.accelerate.gradient_step import (
    can_capture_steps,
    gradient_step,
    keep_rates_on_device,
    optimizer_tensors,
)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, [3.0, 4.0]), (2.5, [1.5, 2.0])],
    ids=["not clipped", "clipped"],
)
def test_a_step_replaces_old_gradients_then_clips(
    limit: float | None, expected: list[float]
) -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.full((2,), 100.0)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    loss = -(weight * torch.tensor([3.0, 4.0])).sum()
    norm = gradient_step(loss, optimizer, [weight], limit)
    # Of the whole gradient, 3 and 4, before it is clipped.
    assert norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(weight.data, torch.tensor(expected))


def test_an_optimisers_rates_become_tensors_that_stay() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [{"params": weights[:1], "lr": 0.5}, {"params": weights[1:]}]
    optimizer = torch.optim.Adam(groups, lr=0.25, fused=True)
    keep_rates_on_device(optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    keep_rates_on_device(optimizer)
    assert all(a is group["lr"] for a, group in zip(rates, optimizer.param_groups, strict=True))
    assert [rate.item() for rate in rates] == [0.5, 0.25]
    assert len(list(optimizer_tensors(optimizer))) == 4
    for weight in weights:
        weight.grad = torch.ones(2)
    optimizer.step()
    # Two moments and a count for each.
    assert len(list(optimizer_tensors(optimizer))) == 4 + 2 * 3


def test_only_steps_that_count_on_the_device_can_be_captured() -> None:
    weight = [torch.nn.Parameter(torch.ones(2))]
    assert can_capture_steps(torch.optim.Adam(weight, fused=True))
    assert not can_capture_steps(torch.optim.Adam(weight))
    assert not can_capture_steps(torch.optim.SGD(weight, lr=0.1))
