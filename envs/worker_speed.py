"""Measures how much faster slow environments step in processes: ``python -m envs.worker_speed``."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.pixels import PixelVecEnv

STEP_SECONDS = 0.005
ENVS, STEPS, WORKERS = 8, 50, 2


class SlowEnv(gym.Env):
    """A step takes 5 ms, asleep or computing."""

    observation_space = spaces.Box(0, 255, (84, 84, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, busy: bool) -> None:
        self._busy = busy

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode, which has no end."""
        super().reset(seed=seed)
        return self.observation_space.low, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes 5 ms: of waiting, or of this process's computing time."""
        if self._busy:
            end = time.process_time() + STEP_SECONDS
            while time.process_time() < end:
                pass
        else:
            time.sleep(STEP_SECONDS)
        return self.observation_space.low, 0.0, False, False, {}


def steps_per_second(busy: bool, workers: int) -> float:
    """Steps of all environments in a second."""
    with closing(PixelVecEnv([partial(SlowEnv, busy)] * ENVS, workers=workers)) as venv:
        actions = np.zeros(ENVS, dtype=np.int64)
        venv.reset()
        venv.step(actions)
        start = time.perf_counter()
        for _ in range(STEPS):
            venv.step(actions)
        return ENVS * STEPS / (time.perf_counter() - start)


def main() -> None:
    """Prints both speeds and their ratio, for environments that wait and that compute."""
    for busy in (False, True):
        alone, shared = (steps_per_second(busy, workers) for workers in (0, WORKERS))
        print(
            f"{'computing' if busy else 'waiting':9}  {alone:5.0f} steps/s in this process,"
            f" {shared:5.0f} in {WORKERS} workers: {shared / alone:.2f} times"
        )


if __name__ == "__main__":
    main()
