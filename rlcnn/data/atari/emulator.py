"""One Atari game at a time, with its RAM: seen just as ``AtariVecEnv`` shows it to an agent."""

from __future__ import annotations

from pathlib import Path

import ale_py
import cv2
import numpy as np
from ale_py import roms

from envs.checks import ObservationColour
from envs.protocol import AtariProtocol

RAM_BYTES = 128


def minimal_actions(rom: str) -> tuple[str, ...]:
    """What a game's own few actions are called: the minimal set, in the emulator's order."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.loadROM(_rom_path(rom))
    return tuple(action.name for action in ale.getMinimalActionSet())


class AtariGame:
    """A single emulator, which unlike ale-py's vector of them lets its RAM be read.

    Frames are those of ``envs.AtariVecEnv``: of the last two emulator frames of a step the larger
    value of each pixel, resized by OpenCV's area interpolation. That, the opening of a game and
    what an action does are bit-equal; only the number of no-ops in an opening comes from another
    generator, since ale-py's is not the same on every system.

    Attributes:
        actions: what each action is called, by its number: the protocol's set.
        minimal: for each of the game's own few actions (the minimal set) its number.
    """

    def __init__(
        self,
        rom: str,
        protocol: AtariProtocol,
        *,
        obs: ObservationColour = "grey",
        obs_size: int = 84,
        seed: int = 0,
    ) -> None:
        """Loads the game.

        Args:
            rom: the ROM's name, as ``envs.registry.atari_rom`` gives it.
            protocol: how a game starts and what an action does; what it says of training only
                (lost lives, clipped rewards) and its step limit do not matter here.
            obs: "grey" or "rgb".
            obs_size: height and width of a frame in pixels.
            seed: of openings and of sticky actions; 0 <= seed < 2**31.
        """
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", protocol.repeat_action_probability)
        self._ale.setInt("max_num_frames_per_episode", 0)
        self._rom = _rom_path(rom)
        # Without sticky actions nothing in the emulator is random, and one seed will do.
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
        """Makes the game what it would be if made anew with this seed.

        That spares loading the ROM where nothing in the emulator is random.
        """
        self._openings = np.random.default_rng(seed)
        if self._sticky:
            self._ale.setInt("random_seed", seed)
            self._ale.loadROM(self._rom)

    def reset(self) -> np.ndarray:
        """Starts a new game; its first frame, uint8 (channels, obs_size, obs_size)."""
        self._ale.reset_game()
        presses = 0
        if self._protocol.noop_max:
            presses = int(self._openings.integers(self._protocol.noop_max))
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
        """Takes one action for ``frame_skip`` emulator frames.

        Args:
            action: below ``len(actions)``.

        Returns:
            The new frame, uint8 (channels, obs_size, obs_size), or None where the game ended; and
            the reward, not clipped.
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
        """The 128 bytes of RAM as the newest frame left them, uint8."""
        return self._ale.getRAM()

    def _frame(self) -> np.ndarray:
        """The two screens as one frame."""
        # In place and kept, as the emulator does: with a frame_skip of 1 the second screen of a
        # game's opening stays in view.
        frame = np.maximum(self._screens[0], self._screens[1], out=self._screens[0])
        if frame.shape[:2] != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        else:
            frame = frame.copy()
        return frame[None] if frame.ndim == 2 else frame.transpose(2, 0, 1)


def _rom_path(rom: str) -> Path:
    path = roms.get_rom_path(rom)
    if path is None:
        raise ValueError(f'"{rom}" is no ROM of ale-py')
    return path
