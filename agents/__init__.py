"""Minds: PPO and DQN agents on a shared convolutional encoder."""

from agents.builder import load_agent
from agents.dqn import DQN
from agents.ppo import PPO

__all__ = ["DQN", "PPO", "load_agent"]
