"""Agents as something that can learn for a number of steps and be timed."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from agents.config import TrainConfig
from agents.train.builder import build_agent, make_train_env
from rlcnn.accelerate.malloc import keep_freed_memory


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

    @property
    def steady_rate(self) -> float | None:
        """Steps per second in the middle of the last :meth:`learn`; None to time all of it.

        For a learner whose iterations overlap: the first and the last of a call do not.
        """

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
        # Without one, stable-baselines3 makes a temporary directory in every call of learn().
        model.set_logger(Logger(None, []))
        self.least_steps = config.hyperparameters.timed_steps(config.num_envs)
        self.warm_up_steps = config.hyperparameters.warm_up_steps
        # A round of updates of an algorithm with a replay is too short to matter.
        self._laps_count = config.algorithm.on_policy and getattr(model, "overlap", False)
        self._laps = Laps()

    @property
    def replay_bytes_per_transition(self) -> float | None:
        """Bytes, all arrays counted."""
        replay = getattr(self.model, "replay_buffer", None)
        if replay is None:
            return None
        return float(_held(replay) / self.model.buffer_size)  # type: ignore[attr-defined]

    @property
    def steady_rate(self) -> float | None:
        """Steps per second of PPO with ``overlap``, where the last call had three rollouts."""
        return self._laps.rate if self._laps_count else None

    def learn(self, steps: int) -> int:
        """Collects ``steps`` more and learns from them; environment steps really taken."""
        before = self.model.num_timesteps
        self._laps = Laps()
        self.model.learn(steps, self._laps, reset_num_timesteps=False)
        return self.model.num_timesteps - before

    def close(self) -> None:
        """Ends its environments."""
        if self.model.env is not None:
            self.model.env.close()


class Laps(BaseCallback):
    """When rollouts began."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: list[tuple[int, float]] = []

    @property
    def rate(self) -> float | None:
        """Steps per second from the second rollout on, beside each of which an update ran.

        None where fewer than three were begun.
        """
        if len(self._begun) < 3:
            return None
        (first, began), (last, ended) = self._begun[1], self._begun[-1]
        return (last - first) / (ended - began)

    def add(self, steps: int, clock: float) -> None:
        """Notes that a rollout begins after ``steps``, at ``clock`` seconds."""
        self._begun.append((steps, clock))

    def _on_rollout_start(self) -> None:
        self.add(self.num_timesteps, time.perf_counter())

    def _on_step(self) -> bool:
        return True


def our_agent(config: TrainConfig) -> ModelLearner:
    """Our agent, as a training of ``config`` would build and run it."""
    keep_freed_memory()
    venv = make_train_env(config)
    try:
        return ModelLearner(build_agent(config, venv), config)
    except BaseException:
        venv.close()
        raise


def _held(replay: Any) -> int:
    arrays = (value for value in vars(replay).values() if isinstance(value, np.ndarray))
    return int(getattr(replay, "nbytes", 0)) or sum(array.nbytes for array in arrays)
