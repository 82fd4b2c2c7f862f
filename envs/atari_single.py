"""Atari games as single Gymnasium environments: with modes, difficulties and wrappers."""

from __future__ import annotations

import functools
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
from ale_py import roms
from ale_py.env import AtariEnv
from gymnasium.wrappers import AtariPreprocessing

from envs.checks import ObservationColour, check_count
from envs.config import EnvConfig
from envs.errors import UserError
from envs.pixels import PixelVecEnv
from envs.protocol import AtariProtocol, apply_training_rules, get_protocol
from envs.registry import atari_rom
from envs.single import wrap


class SingleAtariVecEnv(PixelVecEnv):
    """Several copies of one game, each a Gymnasium environment of its own.

    Observations, rewards, ends and infos follow the rules of :class:`envs.atari.AtariVecEnv`, which
    is faster but knows neither modes nor difficulties nor wrappers. With equal seeds the games are
    the same where ale-py was built with GNU's C++ library; elsewhere only the numbers of no-ops
    differ. The last observation before the step limit has the emulator's last picture here.

    Attributes:
        env_id: the game.
        protocol: how it is played.
        training: whether the protocol's rules for training hold.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        *,
        protocol: str | AtariProtocol = "classic",
        training: bool = True,
        obs: ObservationColour = "grey",
        obs_size: int = 84,
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        """Starts the games; ``options`` are further arguments of ``PixelVecEnv``.

        Raises:
            UserError: a value is not valid, or the game has no such mode or difficulty.
        """
        self.protocol = get_protocol(protocol)
        self.training = training
        check_game(config, self.protocol)
        make = functools.partial(make_atari_env, config, self.protocol, obs, obs_size)
        super().__init__(
            [make] * check_count("num_envs", num_envs, 1),
            obs=obs,
            obs_size=obs_size,
            max_episode_steps=max_episode_steps or self.protocol.max_episode_steps,
            workers=config.workers,
            **options,
        )
        self._lives = np.zeros(self.num_envs, dtype=np.int32)

    def reset(self) -> np.ndarray:
        """Restarts all games and returns their observations."""
        observations = super().reset()
        self._lives[:] = [info.get("lives", 0) for info in self.reset_infos]
        return observations

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Waits for the games; see :class:`envs.atari.AtariVecEnv`."""
        observations, rewards, ended, infos = super().step_wait()
        for i in np.flatnonzero(ended).tolist():
            infos[i]["lives"] = self.reset_infos[i].get("lives", 0)
        lives = np.array([info.get("lives", 0) for info in infos], dtype=np.int32)
        lost_life = lives < self._lives
        self._lives = lives
        if not self.training:
            return observations, rewards, ended, infos
        rewards, dones = apply_training_rules(
            self.protocol, observations, rewards, ended, lost_life, infos
        )
        return observations, rewards, dones, infos


def check_game(config: EnvConfig, protocol: AtariProtocol) -> None:
    """Checks the arguments of a game.

    Raises:
        UserError: the game or its mode or difficulty does not exist, or an argument would
            contradict the protocol.
    """
    rom = atari_rom(config.env_id)
    for name, value in config.kwargs.items():
        if name not in ("mode", "difficulty", "render_mode"):
            raise UserError(
                f'--env-kwargs {name} {value}: "{config.env_id}" takes mode, difficulty and'
                f" render_mode; --protocol {protocol.name} decides how the game is played"
            )
    if not config.kwargs:
        return
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.loadROM(roms.get_rom_path(rom))  # type: ignore[arg-type]
    valid: dict[str, list[Any]] = {
        "mode": ale.getAvailableModes(),
        "difficulty": ale.getAvailableDifficulties(),
        "render_mode": [None, "rgb_array"],
    }
    for name, value in config.kwargs.items():
        if value not in valid[name] or isinstance(value, bool | float):
            choices = ", ".join(map(str, valid[name]))
            raise UserError(
                f'--env-kwargs {name} {value}: "{config.env_id}" has no such {name}; expected one'
                f" of {choices}"
            )


def make_game(
    config: EnvConfig, protocol: AtariProtocol, render_mode: str | None = None
) -> gym.Env:
    """The bare game, one emulator frame a step and without a step limit."""
    # Its banner would disturb progress bars.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    mode: Any = render_mode or config.kwargs.get("render_mode")
    game = _Game(
        atari_rom(config.env_id),
        mode=config.kwargs.get("mode"),
        difficulty=config.kwargs.get("difficulty"),
        frameskip=1,
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_space=protocol.full_action_space,
        # The step limit counts agent steps without the start of the game, so not in the emulator.
        max_num_frames_per_episode=0,
        render_mode=mode,
    )
    game.spec = gym.spec(config.env_id)
    return game


def make_atari_env(
    config: EnvConfig,
    protocol: AtariProtocol,
    obs: ObservationColour,
    obs_size: int,
    game: gym.Env | None = None,
) -> gym.Env:
    """One game, a step of which is an agent step, in the wrappers of its configuration.

    Args:
        config: the game.
        protocol: how it starts and what an action does; the rules for training have no effect.
        obs: "grey" or "rgb".
        obs_size: height and width in pixels.
        game: the bare game, perhaps wrapped; by default a new one.
    """
    env = AtariPreprocessing(
        _Opening(game or make_game(config, protocol), protocol),
        noop_max=0,
        frame_skip=protocol.frame_skip,
        screen_size=int(obs_size),
        grayscale_obs=obs == "grey",
    )
    return wrap(env, config)


class _Game(AtariEnv):
    """A game whose emulator has the seed itself, as in ale-py's vector environment."""

    def seed_game(self, seed: int | None = None) -> tuple[int, int]:
        seeds: tuple[int, int] = super().seed_game(seed)
        if seed is not None:
            self.ale.setInt("random_seed", seed)
        return seeds


class _Opening(gym.Wrapper):
    """Starts a game like ale-py's vector environment: no-op frames, the last one FIRE if needed.

    Gymnasium's ``AtariPreprocessing`` supports no-ops but not FIRE.
    """

    def __init__(self, env: gym.Env, protocol: AtariProtocol) -> None:
        super().__init__(env)
        actions = env.get_wrapper_attr("get_action_meanings")()
        self._fire = (
            actions.index("FIRE") if protocol.use_fire_reset and "FIRE" in actions else None
        )
        self._noop_max = protocol.noop_max
        self._generator = np.random.RandomState()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._generator.seed(seed)
        noops = self._draw_noops()
        presses = [0] * noops if self._fire is None else [self._fire, *[0] * (noops - 1)]
        for action in presses:
            observation, _, terminated, _, info = self.env.step(action)
            if terminated:
                observation, info = self.env.reset()
        return observation, info

    def _draw_noops(self) -> int:
        """A number below ``noop_max``, as C++ draws it in ale-py's vector environment.

        GNU's ``uniform_int_distribution`` scales a word of the Mersenne Twister, by D. Lemire,
        "Fast Random Integer Generation in an Interval", 2019; it draws again below a threshold.
        """
        if self._noop_max < 2:
            return 0
        while True:
            word = int(self._generator.randint(2**32, dtype=np.uint32))
            scaled = word * self._noop_max
            if scaled % 2**32 >= 2**32 % self._noop_max:
                return scaled >> 32
