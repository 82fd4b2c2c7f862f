"""PPO: the agent, its objective, and the learner that minimises it."""

from agents.ppo.agent import PPO

__all__ = ["PPO"]
