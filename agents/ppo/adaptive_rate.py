"""A learning rate that follows the divergence of the policy from the one that acted."""

from __future__ import annotations

LOWEST_RATE, HIGHEST_RATE = 1e-6, 1e-2
_FACTOR = 1.5


def adapted_rate(rate: float, kl: float, threshold: float) -> float:
    """The learning rate after an update with divergence ``kl``, within 1e-6 and 1e-2.

    The rule of rl_games (``rl_games/common/schedulers.py``, ``AdaptiveScheduler``): lower by a
    factor of 1.5 above twice the threshold, higher by as much below half of it.
    """
    if kl > 2 * threshold:
        return max(rate / _FACTOR, LOWEST_RATE)
    if kl < threshold / 2:
        return min(rate * _FACTOR, HIGHEST_RATE)
    return rate


def rate_in_bounds(rate: float) -> bool:
    """Whether a learning rate can be adapted from the start."""
    return LOWEST_RATE <= rate <= HIGHEST_RATE
