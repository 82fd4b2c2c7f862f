"""Losses against references in float64, and closed forms at edges."""

from __future__ import annotations

import math

import pytest
import torch

from agents.dqn.losses import (
    categorical_loss,
    huber_loss,
    project,
    quantile_huber_loss,
    scaled_log_policy,
    squared_loss,
)


def assert_close(ours: torch.Tensor, expected: list[float] | torch.Tensor) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


def draws(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def projected(
    returns: torch.Tensor, probabilities: torch.Tensor, support: torch.Tensor
) -> torch.Tensor:
    """Algorithm 1 of Bellemare et al. 2017, step by step."""
    result = torch.zeros_like(probabilities, dtype=torch.float64)
    first, last = support[0].item(), support[-1].item()
    step = (last - first) / (len(support) - 1)
    for sample, row in enumerate(returns.tolist()):
        for value, probability in zip(row, probabilities[sample].tolist(), strict=True):
            place = (min(max(value, first), last) - first) / step
            low, high = math.floor(place), math.ceil(place)
            if low == high:
                result[sample, low] += probability
            else:
                result[sample, low] += probability * (high - place)
                result[sample, high] += probability * (place - low)
    return result


def test_the_projection_is_that_of_bellemare_et_al() -> None:
    support = torch.linspace(-10, 10, 51)
    probabilities = draws(0, 32, 51).softmax(dim=1)
    # Some returns lie beyond both ends.
    returns = 8 * draws(1, 32, 1) + 0.99 * support
    ours = project(returns, probabilities, support)
    assert_close(ours, projected(returns.double(), probabilities.double(), support.double()))
    assert_close(ours.sum(dim=1), [1.0] * 32)


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        # On atoms nothing is divided, at the ends neither.
        ([-1.0, 0.0, 1.0], [0.5, 0.3, 0.2]),
        ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        ([-7.0, -1.0, 7.0], [0.8, 0.0, 0.2]),
        # Half way, and a quarter of the way.
        ([-0.5, 0.5, 1.0], [0.25, 0.4, 0.35]),
        ([0.25, 0.25, 0.25], [0.0, 0.75, 0.25]),
    ],
)
def test_the_projection_on_atoms_between_and_beyond_them(
    returns: list[float], expected: list[float]
) -> None:
    support, probabilities = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([[0.5, 0.3, 0.2]])
    assert_close(project(torch.tensor([returns]), probabilities, support)[0], expected)


def test_the_categorical_loss_is_the_cross_entropy() -> None:
    logits, targets = draws(0, 8, 5), draws(1, 8, 5).softmax(dim=1)
    losses, priorities = categorical_loss(logits, targets)
    chances = logits.double().exp() / logits.double().exp().sum(dim=1, keepdim=True)
    expected = [
        -sum(float(t) * math.log(float(p)) for t, p in zip(*rows, strict=True))
        for rows in zip(targets, chances, strict=True)
    ]
    assert_close(losses, expected)
    assert_close(priorities, expected)


@pytest.mark.parametrize("sizes", [(5, 5), (5, 3), (1, 4)])
def test_the_quantile_loss_sums_predictions_and_averages_targets(sizes: tuple[int, int]) -> None:
    predicted, targets = 2 * draws(0, 8, sizes[0]), 2 * draws(1, 8, sizes[1])
    taus = draws(2, 8, sizes[0]).sigmoid()
    losses, priorities = quantile_huber_loss(predicted, taus, targets)
    expected, errors = [], []
    for sample in range(8):
        loss = error = 0.0
        for value, tau in zip(predicted[sample].tolist(), taus[sample].tolist(), strict=True):
            for target in targets[sample].tolist():
                u = target - value
                huber = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
                loss += abs(tau - (u < 0)) * huber / sizes[1]
                error += abs(u) / sizes[1]
        expected.append(loss)
        errors.append(error)
    assert_close(losses, expected)
    assert_close(priorities, errors)


def test_losses_of_q_values() -> None:
    predicted, targets = draws(0, 16, 1), 3 * draws(1, 16, 1)
    errors = (predicted - targets).double().squeeze(1).abs()
    huber = huber_loss(predicted, targets)
    assert_close(huber.loss, torch.where(errors < 1, errors**2 / 2, errors - 0.5))
    squared = squared_loss(predicted, targets)
    assert_close(squared.loss, errors**2)
    for losses in (huber, squared):
        assert_close(losses.priorities, errors)


def test_priorities_carry_no_gradient() -> None:
    predicted = draws(0, 4, 3).requires_grad_()
    targets, taus = draws(1, 4, 3), torch.full((1, 3), 0.5)
    one = predicted[:, :1], targets[:, :1]
    for losses in (
        huber_loss(*one),
        squared_loss(*one),
        categorical_loss(predicted, targets.softmax(dim=1)),
        quantile_huber_loss(predicted, taus, targets),
    ):
        assert losses.loss.shape == losses.priorities.shape == (4,)
        assert losses.loss.requires_grad
        assert not losses.priorities.requires_grad


def test_the_log_policy_is_stable_where_the_plain_form_is_not() -> None:
    values = 10 * draws(0, 16, 6)
    ours = scaled_log_policy(values, 0.03)
    expected = 0.03 * torch.log_softmax(values.double() / 0.03, dim=1)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)
    # exp(10 / 0.03) has no float32.
    assert torch.isinf((values / 0.03).exp()).any()
    assert_close(scaled_log_policy(torch.tensor([[1e4, 0.0]]), 0.03)[0], [0.0, -1e4])
