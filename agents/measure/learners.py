"""Agents as learners: they learn for a number of steps and can be timed."""

from __future__ import annotations

import time
from typing import Protocol

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
        warm_up_steps: environment steps before the first update.
        least_steps: environment steps of a whole iteration of collecting and learning.
    """

    warm_up_steps: int = 0
    least_steps: int

    @property
    def replay_bytes_per_transition(self) -> float | None:
        """Bytes of the replay per transition of its capacity; None without a replay."""
        return None

    @property
    def steady_rate(self) -> float | None:
        """Steps per second in the middle of the last :meth:`learn`; None to time all of it.

        For learners with overlapping iterations: the first and the last of a call do not overlap.
        """
        return None

    def learn(self, steps: int) -> int:
        """Collects ``steps`` more and learns from them; the environment steps really taken."""

    def close(self) -> None:
        """Closes the environments."""


class ModelLearner:
    """A ``model`` with stable-baselines3's interface, ours or its own, as a :class:`Learner`."""

    def __init__(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        self.model = model
        # Otherwise stable-baselines3 makes a temporary directory in every call of learn().
        model.set_logger(Logger(None, []))
        self.least_steps = config.hyperparameters.timed_steps(config.num_envs)
        self.warm_up_steps = config.hyperparameters.warm_up_steps
        # A round of updates of an algorithm with a replay is too short to matter.
        self._laps_count = config.algorithm.on_policy and getattr(model, "overlap", False)
        self._laps = Laps()

    @property
    def replay_bytes_per_transition(self) -> float | None:
        """Bytes of all its arrays."""
        replay = getattr(self.model, "replay_buffer", None)
        if replay is None:
            return None
        arrays = [value for value in vars(replay).values() if isinstance(value, np.ndarray)]
        size = getattr(replay, "nbytes", 0) or sum(array.nbytes for array in arrays)
        return float(size / self.model.buffer_size)  # type: ignore[attr-defined]

    @property
    def steady_rate(self) -> float | None:
        """Steps per second of PPO with ``overlap`` if the last call had three rollouts."""
        return self._laps.rate if self._laps_count else None

    def learn(self, steps: int) -> int:
        """Collects ``steps`` more and learns from them; the environment steps really taken."""
        before = self.model.num_timesteps
        self._laps = Laps()
        self.model.learn(steps, self._laps, reset_num_timesteps=False)
        return self.model.num_timesteps - before

    def close(self) -> None:
        """Closes the environments."""
        if self.model.env is not None:
            self.model.env.close()


class Laps(BaseCallback):
    """Records when rollouts start."""

    def __init__(self) -> None:
        super().__init__()
        self._starts: list[tuple[int, float]] = []

    @property
    def rate(self) -> float | None:
        """Steps per second from the second rollout on; an update runs beside each of these.

        None with fewer than three rollouts.
        """
        if len(self._starts) < 3:
            return None
        (first, began), (last, ended) = self._starts[1], self._starts[-1]
        return (last - first) / (ended - began)

    def add(self, steps: int, clock: float) -> None:
        """Records that a rollout starts after ``steps``, at ``clock`` seconds."""
        self._starts.append((steps, clock))

    def _on_rollout_start(self) -> None:
        self.add(self.num_timesteps, time.perf_counter())

    def _on_step(self) -> bool:
        return True


def our_agent(config: TrainConfig) -> ModelLearner:
    """Our agent, as a training of ``config`` builds and runs it."""
    keep_freed_memory()
    venv = make_train_env(config)
    try:
        return ModelLearner(build_agent(config, venv), config)
    except BaseException:
        venv.close()
        raise
