"""Losses of Q values and of distributions of returns, each of one action per sample."""

from __future__ import annotations

from typing import NamedTuple

import torch


class QLoss(NamedTuple):
    """The loss of each sample, and how much its transition deserves to be replayed again."""

    loss: torch.Tensor  # float32 (batch,), with a gradient
    priorities: torch.Tensor  # float32 (batch,), from 0, without a gradient


def huber_loss(predicted: torch.Tensor, targets: torch.Tensor) -> QLoss:
    """Huber losses of temporal differences (Mnih et al. 2015, "Methods").

    Both are Q values float32 (batch, 1). Priorities are the absolute differences (Schaul et al.
    2016, section 3.3).
    """
    errors = torch.nn.functional.smooth_l1_loss(predicted, targets, reduction="none")
    return QLoss(errors.squeeze(1), (predicted - targets).detach().abs().squeeze(1))


def squared_loss(predicted: torch.Tensor, targets: torch.Tensor) -> QLoss:
    """Squared temporal differences, as Dopamine's DQN; otherwise as :func:`huber_loss`."""
    errors = (predicted - targets).squeeze(1)
    return QLoss(errors.square(), errors.detach().abs())


def project(
    returns: torch.Tensor, probabilities: torch.Tensor, support: torch.Tensor
) -> torch.Tensor:
    """Probabilities of atoms after their returns have moved (Bellemare et al. 2017, equation 7).

    Args:
        returns: where each atom has moved to, float32 (batch, atoms).
        probabilities: of the atoms, float32 (batch, atoms).
        support: the fixed atoms, evenly spaced, float32 (atoms,).

    Returns:
        float32 (batch, atoms): each atom's probability is divided between the two fixed atoms
        around its return; what lies outside goes to the first or the last.
    """
    step = support[1] - support[0]
    clipped = torch.minimum(torch.maximum(returns, support[0]), support[-1])
    distances = (clipped[:, None] - support[:, None]).abs() / step
    return ((1 - distances).clamp(min=0) * probabilities[:, None]).sum(dim=2)


def categorical_loss(logits: torch.Tensor, targets: torch.Tensor) -> QLoss:
    """Cross-entropies (Bellemare et al. 2017, algorithm 1); they are the priorities, too.

    dqn_zoo's Rainbow has the same priorities; those of Hessel et al. 2018 are divergences, which
    are less by the entropy of the target. ``logits`` and the probabilities ``targets`` are float32
    (batch, atoms).
    """
    losses = -(targets * logits.log_softmax(dim=1)).sum(dim=1)
    return QLoss(losses, losses.detach())


def quantile_huber_loss(
    predicted: torch.Tensor, taus: torch.Tensor, targets: torch.Tensor
) -> QLoss:
    """Quantile Huber losses with kappa 1 (Dabney et al. 2018a, equation 10).

    Summed over predicted quantiles, averaged over target quantiles. Priorities are the absolute
    differences, summed and averaged alike, as in the code of BTR (Clark et al. 2025).

    Args:
        predicted: float32 (batch, quantiles).
        taus: their levels, float32 (batch or 1, quantiles).
        targets: float32 (batch, target quantiles).
    """
    errors = targets[:, None] - predicted[:, :, None]
    sizes = errors.abs()
    huber = torch.where(sizes > 1, sizes - 0.5, 0.5 * errors.square())
    weights = (taus[:, :, None] - (errors.detach() < 0).float()).abs()
    losses = (weights * huber).mean(dim=2).sum(dim=1)
    return QLoss(losses, sizes.detach().mean(dim=2).sum(dim=1))


def scaled_log_policy(values: torch.Tensor, tau: float) -> torch.Tensor:
    """``tau * log softmax(values / tau)`` (Vieillard et al. 2020, appendix B.1).

    For Q values float32 (batch, actions); stable where tau is small against their differences.
    """
    below = values - values.amax(dim=1, keepdim=True)
    return below - tau * torch.logsumexp(below / tau, dim=1, keepdim=True)
