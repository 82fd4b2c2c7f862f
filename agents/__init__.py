"""PPO, DQN and PQN agents on a shared convolutional encoder: training, evaluation, studies."""

from typing import TYPE_CHECKING

import envs  # noqa: F401 - first, so that envs.machine.openmp comes before torch
from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from agents.dqn.agent import DQN
    from agents.ppo.agent import PPO
    from agents.pqn.agent import PQN
    from agents.train.builder import load_agent
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = ["DQN", "PPO", "PQN", "load_agent"]
