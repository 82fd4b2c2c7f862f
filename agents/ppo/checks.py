"""Arguments that PPO refuses, each in one line."""

from __future__ import annotations

from typing import Any

from envs.errors import UserError


def check_options(use_sde: bool, policy_kwargs: Any, buffer_class: Any, buffer_kwargs: Any) -> None:
    """Refuses state-dependent exploration and other rollout buffers by a UserError."""
    if use_sde or (isinstance(policy_kwargs, dict) and policy_kwargs.get("use_sde")):
        raise UserError("use_sde is not supported: it explores continuous actions")
    if buffer_class is not None or buffer_kwargs:
        raise UserError("rollout_buffer_class is not supported: frames are stored by our own")
