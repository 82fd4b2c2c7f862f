"""PPO: the agent, its loop of collecting and learning, and its learner."""

from agents.ppo.agent import PPO

__all__ = ["PPO"]
