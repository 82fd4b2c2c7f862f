"""Arguments that PPO refuses, each in one line."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from agents.ppo.adaptive_rate import HIGHEST_RATE, LOWEST_RATE, rate_in_bounds
from agents.ppo.config import ADAM_EPS
from agents.sb3.arguments import adam_arguments, shown
from envs.errors import UserError


def check_options(use_sde: bool, policy_kwargs: Any, buffer_class: Any, buffer_kwargs: Any) -> None:
    """Refuses state-dependent exploration and other rollout buffers by a UserError."""
    if use_sde or (isinstance(policy_kwargs, dict) and policy_kwargs.get("use_sde")):
        raise UserError("use_sde is not supported: it explores continuous actions")
    if buffer_class is not None or buffer_kwargs:
        raise UserError("rollout_buffer_class is not supported: frames are stored by our own")


def check_adaptive_rate(learning_rate: Any, kl_threshold: Any) -> None:
    """Refuses a threshold, and a learning rate that it cannot adapt, by a UserError."""
    if kl_threshold is None:
        return
    if isinstance(kl_threshold, bool) or not isinstance(kl_threshold, Real) or kl_threshold <= 0:
        raise UserError(f"kl_threshold must be a positive number, not {shown(kl_threshold)}")
    if callable(learning_rate):
        raise UserError("kl_threshold adapts the learning rate: learning_rate must be a number")
    if not rate_in_bounds(learning_rate):
        raise UserError(
            f"learning_rate {learning_rate:g} cannot be adapted by kl_threshold: expected"
            f" {LOWEST_RATE:g} to {HIGHEST_RATE:g}"
        )


def policy_arguments(
    normalize_value: bool, adam_eps: float, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What PPO's own arguments add to those of the policy that were ``given``.

    A UserError says that they contradict each other.
    """
    if "normalize_value" in given:
        raise UserError(
            "policy_kwargs must not have normalize_value: it is an argument of PPO itself"
        )
    added: dict[str, Any] = {"normalize_value": True} if normalize_value else {}
    return {**added, **adam_arguments(adam_eps, ADAM_EPS, given)}
