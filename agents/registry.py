"""The algorithms by name, and what the rest of the project asks about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.dqn.agent import DQN
from agents.dqn.config import DQNConfig
from agents.hyperparameters import Hyperparameters
from agents.ppo.agent import PPO
from agents.ppo.config import PPOConfig

Algorithm = Literal["ppo", "dqn"]
Agent = PPO | DQN


@dataclass(frozen=True)
class AlgorithmSpec:
    """An algorithm.

    What depends on hyperparameters is a method of its section, and what depends on an agent is one
    of the agent (:class:`agents.sb3.run_agent.RunAgent`).

    Attributes:
        name: the value of ``--algo``; the section of options in a configuration has this name, too.
        agent: the class of its agents.
        section: the class of its hyperparameters.
        baseline: stable-baselines3's own class.
        log_interval: rollouts, or episodes of algorithms with a replay, between two rows of
            metrics; stable-baselines3's default.
        on_policy: whether an update learns from the last rollout alone, so that a rollout cut short
            is not learned from and each update is logged by itself.
        replay: whether a checkpoint may hold a replay beside the policy.
        groups: whether environments can be stepped in several groups, in turn.
        compiles: whether ``--compile on`` compiles its updates.
    """

    name: Algorithm
    agent: type[PPO] | type[DQN]
    section: type[Hyperparameters]
    baseline: type[BaseAlgorithm]
    log_interval: int
    on_policy: bool = False
    replay: bool = False
    groups: bool = False
    compiles: bool = False


ALGORITHMS: dict[Algorithm, AlgorithmSpec] = {
    spec.name: spec
    for spec in (
        AlgorithmSpec(
            name="ppo",
            agent=PPO,
            section=PPOConfig,
            baseline=stable_baselines3.PPO,
            log_interval=1,
            on_policy=True,
            groups=True,
            compiles=True,
        ),
        AlgorithmSpec(
            name="dqn",
            agent=DQN,
            section=DQNConfig,
            baseline=stable_baselines3.DQN,
            log_interval=4,
            replay=True,
        ),
    )
}


def algorithm_of(model: Any) -> AlgorithmSpec:
    """The algorithm of an agent."""
    return next(spec for spec in ALGORITHMS.values() if isinstance(model, spec.agent))
