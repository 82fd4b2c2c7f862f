"""One Atari game with its RAM; its frames equal those of ``AtariVecEnv``."""

from __future__ import annotations

import ale_py
import cv2
import numpy as np
from ale_py import roms

from envs.checks import ObservationColour
from envs.protocol import AtariProtocol, get_protocol

RAM_BYTES = 128


def minimal_actions(rom: str) -> tuple[str, ...]:
    """Names of a game's minimal action set, in the emulator's order."""
    game = AtariGame(rom, get_protocol("classic"))
    return tuple(game.actions[index] for index in game.minimal)


class AtariGame:
    """A single emulator with readable RAM, which ale-py's vector environment lacks.

    Frames, openings and the effects of actions are bit-equal to those of ``envs.AtariVecEnv``. Only
    the number of no-ops in an opening comes from another generator, since ale-py's differs between
    systems.

    Attributes:
        actions: names of the protocol's actions.
        minimal: indices in ``actions`` of the game's minimal set.
    """

    def __init__(
        self,
        rom: str,
        protocol: AtariProtocol,
        obs: ObservationColour = "grey",
        obs_size: int = 84,
        seed: int = 0,
    ) -> None:
        """Loads the game.

        The protocol's rules for training (lost lives, clipped rewards) and its step limit have no
        effect here. ``seed``, 0 <= seed < 2**31, determines openings and sticky actions.
        """
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", protocol.repeat_action_probability)
        self._ale.setInt("max_num_frames_per_episode", 0)
        path = roms.get_rom_path(rom)
        if path is None:
            raise ValueError(f'"{rom}" is no ROM of ale-py')
        self._rom = path
        self._sticky = protocol.repeat_action_probability > 0
        self._ale.setInt("random_seed", seed if self._sticky else 0)
        self._ale.loadROM(self._rom)
        minimal = self._ale.getMinimalActionSet()
        self._actions = self._ale.getLegalActionSet() if protocol.full_action_space else minimal
        self.actions = tuple(action.name for action in self._actions)
        self.minimal = tuple(self._actions.index(action) for action in minimal)
        self._protocol = protocol
        self._openings = np.random.default_rng(seed)
        grey = obs == "grey"
        self._draw = self._ale.getScreenGrayscale if grey else self._ale.getScreenRGB
        height, width = self._ale.getScreenDims()
        shape = (2, height, width) if grey else (2, height, width, 3)
        self._screens = np.zeros(shape, dtype=np.uint8)
        self._size = (obs_size, obs_size)

    def reseed(self, seed: int) -> None:
        """Has the effect of a new game with this seed."""
        self._openings = np.random.default_rng(seed)
        # Without sticky actions nothing in the emulator is random.
        if self._sticky:
            self._ale.setInt("random_seed", seed)
            self._ale.loadROM(self._rom)

    def reset(self) -> np.ndarray:
        """Starts a new game and returns its first frame, uint8 (channels, obs_size, obs_size)."""
        self._ale.reset_game()
        noop_max = self._protocol.noop_max
        presses = int(self._openings.integers(noop_max)) if noop_max else 0
        fire = self._protocol.use_fire_reset and "FIRE" in self.actions
        if fire:
            self._ale.act(ale_py.Action.FIRE)
        for _ in range(presses - fire):
            self._ale.act(ale_py.Action.NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        self._draw(self._screens[0])
        self._screens[1] = 0
        return self._frame()

    def step(self, action: int) -> tuple[np.ndarray | None, int]:
        """Takes one action, below ``len(actions)``, for ``frame_skip`` emulator frames.

        Returns the new frame as :meth:`reset`, or None at the end of the game; and the reward, not
        clipped.
        """
        pressed = self._actions[action]
        reward = 0
        for left in reversed(range(self._protocol.frame_skip)):
            reward += self._ale.act(pressed)
            if self._ale.game_over():
                return None, reward
            if left < 2:
                self._draw(self._screens[left])
        return self._frame(), reward

    def ram(self) -> np.ndarray:
        """The 128 bytes of RAM after the newest frame, uint8."""
        return self._ale.getRAM()

    def _frame(self) -> np.ndarray:
        # In place, as in ale-py: with a frame_skip of 1 the second screen of an opening stays
        # visible.
        frame = np.maximum(self._screens[0], self._screens[1], out=self._screens[0])
        if frame.shape[:2] != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        else:
            frame = frame.copy()
        return frame[None] if frame.ndim == 2 else frame.transpose(2, 0, 1)
