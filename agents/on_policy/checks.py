"""Sizes of rollouts and minibatches that are refused, each in one line."""

from __future__ import annotations

from agents.sb3.arguments import check_count
from envs.errors import UserError


def check_minibatches(n_envs: int, n_steps: int, batch_size: int, normalize: bool = False) -> None:
    """Refuses minibatches that cannot be learned from, or do not divide the rollout.

    Its UserError names the nearest size that divides it.
    """
    for name, value in (("n_steps", n_steps), ("batch_size", batch_size)):
        check_count(name, value)
    if normalize and batch_size == 1:
        raise UserError(
            "batch_size 1 has no spread to normalize advantages by: it must be at least 2,"
            " or normalize_advantage off"
        )
    rollout = n_envs * n_steps
    if rollout % batch_size:
        raise UserError(
            f"batch_size {batch_size} does not divide the rollout of {rollout} steps"
            f" ({n_envs} environments x {n_steps} steps);"
            f" the nearest that does is {_nearest_divisor(rollout, batch_size)}"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    divisors = (n for n in range(1, number + 1) if number % n == 0)
    return min(divisors, key=lambda n: abs(n - wanted))
