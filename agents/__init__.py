"""PPO and DQN agents on a shared convolutional encoder: training, evaluation, studies."""

import envs  # noqa: F401 - first, so that envs.machine.openmp comes before torch
from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.train.builder import load_agent

__all__ = ["DQN", "PPO", "load_agent"]
