"""PQN: the agent, its objective, and the learner that minimises it."""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from agents.pqn.agent import PQN
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = ["PQN"]
