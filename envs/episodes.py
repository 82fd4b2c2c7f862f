"""The common part of vector environments that stack frames and report whole episodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from envs.checks import derive_seeds
from envs.stacking import FrameStacking


class EpisodeVecEnv(VecEnv):
    """Counts returns and lengths of episodes, and reports them as SB3's ``Monitor`` does.

    Attributes:
        frame_stacking: how observations are stacked.
    """

    def __init__(
        self, num_envs: int, num_actions: int, channels: int, obs_size: int, frame_stack: int
    ) -> None:
        self.frame_stacking = FrameStacking(depth=frame_stack, channels=channels, padding="zeros")
        shape = (frame_stack * channels, obs_size, obs_size)
        super().__init__(
            num_envs, spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(num_actions)
        )
        self._num_actions = num_actions
        self._returns = np.zeros(num_envs, dtype=np.float64)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._started = False
        self._created = time.perf_counter()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds the next ``reset`` and returns the seed of each environment.

        Args:
            seed: 0 <= seed < 2**31; None draws one from numpy's global generator.

        Raises:
            UserError: the seed is not in that range.
        """
        self._seeds = list(derive_seeds(seed, self.num_envs))
        return self._seeds

    def _check_started(self) -> None:
        if not self._started:
            raise RuntimeError("call reset() before the first step")

    def _report_end(
        self, i: int, info: dict[str, Any], final_observation: np.ndarray, truncated: bool
    ) -> None:
        """Adds the end of an episode to its info, and restarts the counts."""
        # A copy, since a view would keep the whole batch alive.
        info["terminal_observation"] = final_observation.copy()
        info["TimeLimit.truncated"] = truncated
        info["episode"] = {
            "r": float(self._returns[i]),
            "l": int(self._lengths[i]),
            "t": round(time.perf_counter() - self._created, 6),
        }
        self._returns[i] = 0
        self._lengths[i] = 0
