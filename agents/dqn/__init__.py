"""DQN: the agent, its actor, its objectives, and the learner that minimises them."""

from agents.dqn.agent import DQN

__all__ = ["DQN"]
