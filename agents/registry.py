"""The algorithms by name."""

from __future__ import annotations

from typing import Any

from agents.algorithm import AlgorithmSpec
from agents.dqn.agent import DQN
from agents.dqn.spec import DQNSpec
from agents.hyperparameters import Algorithm
from agents.ppo.agent import PPO
from agents.ppo.spec import PPOSpec
from agents.pqn.agent import PQN
from agents.pqn.spec import PQNSpec

Agent = PPO | DQN | PQN

ALGORITHMS: dict[Algorithm, AlgorithmSpec[Any]] = {
    "ppo": PPOSpec(),
    "dqn": DQNSpec(),
    "pqn": PQNSpec(),
}


def algorithm_of(model: Agent) -> AlgorithmSpec[Any]:
    """The algorithm of an agent."""
    return next(spec for spec in ALGORITHMS.values() if isinstance(model, spec.agent))
