"""Agents as something that can learn for a number of steps and be timed."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.builder import build_agent, make_train_env
from agents.config import TrainConfig
from agents.heap import keep_freed_memory

# Of DQN, which could be stopped after any step, the fewest that are timed at once.
_FEWEST_STEPS = 200


class Learner(Protocol):
    """An agent in its environments.

    Attributes:
        warm_up_steps: environment steps before its first update.
        least_steps: environment steps in which whole iterations of collecting and learning are
            done.
    """

    warm_up_steps: int
    least_steps: int

    @property
    def replay_bytes_per_transition(self) -> float | None:
        """What its replay takes for each transition it can hold; None without a replay."""

    def learn(self, steps: int) -> int:
        """Collects ``steps`` more and learns from them; environment steps really taken."""

    def close(self) -> None:
        """Ends its environments."""


class ModelLearner:
    """A :class:`Learner` made of a model with stable-baselines3's face, ours or its own.

    Attributes:
        model: that learns.
    """

    def __init__(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        self.model = model
        self.least_steps = iteration_steps(config)
        self.warm_up_steps = config.dqn.learning_starts if config.algo == "dqn" else 0

    @property
    def replay_bytes_per_transition(self) -> float | None:
        """Bytes, all arrays counted."""
        replay = getattr(self.model, "replay_buffer", None)
        if replay is None:
            return None
        return float(_held(replay) / self.model.buffer_size)  # type: ignore[attr-defined]

    def learn(self, steps: int) -> int:
        """Collects ``steps`` more and learns from them; environment steps really taken."""
        before = self.model.num_timesteps
        self.model.learn(steps, reset_num_timesteps=False)
        return self.model.num_timesteps - before

    def close(self) -> None:
        """Ends its environments."""
        if self.model.env is not None:
            self.model.env.close()


def our_agent(config: TrainConfig) -> ModelLearner:
    """Our agent, as a training of ``config`` would build and run it."""
    keep_freed_memory()
    venv = make_train_env(config)
    try:
        return ModelLearner(build_agent(config, venv), config)
    except BaseException:
        venv.close()
        raise


def iteration_steps(config: TrainConfig) -> int:
    """Environment steps of one whole iteration: a PPO rollout, or some rounds of DQN updates."""
    if config.algo == "ppo":
        return config.num_envs * config.ppo.n_steps
    round_of_updates = math.lcm(config.num_envs, config.dqn.train_freq)
    return math.ceil(_FEWEST_STEPS / round_of_updates) * round_of_updates


def _held(replay: Any) -> int:
    arrays = (value for value in vars(replay).values() if isinstance(value, np.ndarray))
    return int(getattr(replay, "nbytes", 0)) or sum(array.nbytes for array in arrays)
