"""Tiny games in Gymnasium's registry, and random play of vectors of games.

``support.games:Signals-v0`` is for whole training runs. Tiny games run in this process, without an
emulator's threads, so a run takes seconds.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs import AtariVecEnv

SIZE = 36


class Signals(gym.Env):
    """One of four columns is lit, and its action earns 2. A game has 8 steps, or never ends."""

    metadata = {"render_modes": [], "render_fps": 30}  # noqa: RUF012

    def __init__(self, length: int | None = 8, colour: bool = False) -> None:
        shape = (SIZE, SIZE, 3) if colour else (SIZE, SIZE)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(4)
        self.length = length

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = 2.0 * float(action == self.lit)
        self.steps += 1
        return self._show(), reward, self.steps == self.length, False, {}

    def _show(self) -> np.ndarray:
        self.lit = int(self.np_random.integers(4))
        image = np.zeros(self.observation_space.shape, dtype=np.uint8)  # type: ignore[arg-type]
        image[:, self.lit * SIZE // 4 : (self.lit + 1) * SIZE // 4] = 255
        return image


class Halved(gym.RewardWrapper):
    """Half of every reward."""

    def reward(self, reward: Any) -> float:
        return float(reward) / 2


def random_actions(env: AtariVecEnv, steps: int, seed: int = 0) -> np.ndarray:
    """Actions (steps, num_envs)."""
    return np.random.default_rng(seed).integers(env.action_space.n, size=(steps, env.num_envs))


def play(env: AtariVecEnv, actions: np.ndarray) -> list:
    env.reset()
    return [env.step(action) for action in actions]


gym.register("Signals-v0", Signals)
gym.register("ColourSignals-v0", Signals, kwargs={"colour": True})
gym.register("Endless-v0", Signals, kwargs={"length": None})
