"""DQN: the agent, its actor, its objectives, and the learner that minimises them."""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from agents.dqn.agent import DQN
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = ["DQN"]
