"""Minds: PPO and DQN agents on a shared convolutional encoder."""

import envs  # noqa: F401 - first, so that envs.openmp comes before torch
from agents.builder import load_agent
from agents.dqn import DQN
from agents.ppo import PPO

__all__ = ["DQN", "PPO", "load_agent"]
