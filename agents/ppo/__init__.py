"""PPO: the agent, its objective, and the learner that minimises it."""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from agents.ppo.agent import PPO
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = ["PPO"]
