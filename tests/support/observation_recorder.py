"""Compares the observations that on-policy storage rebuilds with the environment's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnvWrapper


class ObservationRecorder(VecEnvWrapper):
    """Records everything that an environment returns, and how episodes ended.

    Attributes:
        seen: observations, one batch more than steps.
        rewards: one array for each step.
        infos: one list for each step.
        ends: kinds of ends so far: "life lost", "cut off", "ended".
    """

    def __init__(self, venv: Any) -> None:
        super().__init__(venv)
        self.seen: list[np.ndarray] = []
        self.rewards: list[np.ndarray] = []
        self.infos: list[list[dict[str, Any]]] = []
        self.ends: set[str] = set()

    def reset(self) -> np.ndarray:
        observations = self.venv.reset()
        assert isinstance(observations, np.ndarray)
        self.seen.append(observations.copy())
        return observations

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(observations, np.ndarray)
        self.seen.append(observations.copy())
        self.rewards.append(rewards.copy())
        self.infos.append(infos)
        for i in np.flatnonzero(dones):
            if infos[i].get("life_loss"):
                self.ends.add("life lost")
            else:
                self.ends.add("cut off" if infos[i]["TimeLimit.truncated"] else "ended")
        return observations, rewards, dones, infos


class CompareObservations(BaseCallback):
    """Compares every rollout's observations with those that were recorded."""

    def __init__(self, recorder: ObservationRecorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.rollouts = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        rollout = self.model.rollout_buffer  # type: ignore[attr-defined]
        rebuilt = rollout.observations(torch.arange(rollout.buffer_size * rollout.n_envs)).numpy()
        # The newest belongs to the next rollout.
        seen = np.concatenate(self.recorder.seen[-rollout.buffer_size - 1 : -1])
        np.testing.assert_array_equal(rebuilt, seen)
        self.rollouts += 1
