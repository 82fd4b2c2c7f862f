"""A small game for recorded runs and for runs kept as fixtures: ``recorded_game:Catch-v0``.

It must not change: recorded digests and the runs in ``tests/fixtures`` depend on every frame of it.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

CELLS, CELL = 6, 6
SIZE = CELLS * CELL


class Catch(gym.Env):
    """A ball falls; the paddle at the bottom moves left, stays or moves right and catches it.

    Three balls make a game. A caught ball earns 1, a lost one -1.
    """

    metadata = {"render_modes": [], "render_fps": 30}  # noqa: RUF012
    observation_space = spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.balls, self.paddle = 0, CELLS // 2
        self._drop()
        return self._frame(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.paddle = min(max(self.paddle + int(action) - 1, 0), CELLS - 1)
        self.row += 1
        reward = 0.0
        if self.row == CELLS - 1:
            reward = 1.0 if self.column == self.paddle else -1.0
            self.balls += 1
            self._drop()
        return self._frame(), reward, self.balls == 3, False, {}

    def _drop(self) -> None:
        # Balls start at different heights, so that games differ in length.
        self.row, self.column = (int(number) for number in self.np_random.integers((2, CELLS)))

    def _frame(self) -> np.ndarray:
        cells = np.zeros((CELLS, CELLS, 1), dtype=np.uint8)
        cells[self.row, self.column] = 255
        cells[CELLS - 1, self.paddle] = 128
        return cells.repeat(CELL, axis=0).repeat(CELL, axis=1)


gym.register("Catch-v0", Catch)
