"""DQN: the agent, its loop, its learner, and its objective."""

from agents.dqn.agent import DQN

__all__ = ["DQN"]
