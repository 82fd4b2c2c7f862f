"""Films whole episodes in colour and at true speed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing

from envs.checks import ObservationColour, check_observation
from envs.errors import UserError
from envs.mp4 import Mp4Writer
from envs.pixels import PixelVecEnv, make_env, to_rgb
from envs.protocol import AtariProtocol, get_protocol
from envs.registry import atari_rom, find_spec, is_atari

# The console drew one picture for each field of NTSC television; ale-py's metadata say 30.
ATARI_FPS = 60

# Films are about this high, in pixels: twice an Atari screen.
FILM_HEIGHT = 420


@dataclass(frozen=True)
class FilmResult:
    """What was filmed.

    Attributes:
        path: the MP4.
        episode_return: the filmed episode's own return: unclipped, over all lives.
        length: agent steps.
        frames: pictures in the film.
        fps: pictures in a second.
        truncated: whether a step limit ended the episode.
        caption: one line that tells of return and length.
    """

    path: Path
    episode_return: float
    length: int
    frames: int
    fps: int
    truncated: bool
    caption: str


def film_episode(
    env_id: str,
    act: Callable[[np.ndarray], np.ndarray],
    path: str | os.PathLike[str],
    *,
    protocol: str | AtariProtocol = "classic",
    obs: ObservationColour = "grey",
    obs_size: int = 84,
    frame_stack: int = 4,
    seed: int = 0,
    max_episode_steps: int = 27_000,
    caption_prefix: str = "",
) -> FilmResult:
    """Play one episode and film all of it: of a game, every picture that the emulator drew.

    The episode is played as in evaluation (a lost life does not end it) in an environment of its
    own, whose observations are made like those of ``make_vec_env``. The film is written aside and
    takes its path when it is whole.

    Args:
        env_id: any id that ``make_vec_env`` takes. An environment that cannot render
            ``rgb_array`` is filmed by its observations.
        act: from observations uint8 (1, frame_stack * C, obs_size, obs_size) to actions (1,).
        path: of the MP4; missing directories are made and an old film is replaced.
        protocol: Atari only: no-op starts, FIRE, sticky actions and the set of actions.
        obs: "grey" or "rgb".
        obs_size: height and width of observations in pixels.
        frame_stack: frames in one observation.
        seed: of the environment.
        max_episode_steps: agent steps after which the film ends: some policies play for ever.
        caption_prefix: put before the caption, with a separator.

    Raises:
        UserError: a value is not valid, or the film cannot be written.
    """
    check_observation(obs, obs_size, frame_stack)
    if env_id.startswith("ALE/") or is_atari(find_spec(env_id)):
        played = get_protocol(protocol)
        lens = _atari_lens(env_id, played)
        env: gym.Env = AtariPreprocessing(
            _AtariOpening(lens, played),
            noop_max=0,
            frame_skip=played.frame_skip,
            screen_size=int(obs_size),
            grayscale_obs=obs == "grey",
        )
    else:
        env = lens = _pixel_lens(env_id)
    venv = PixelVecEnv(
        [lambda: env],
        obs=obs,
        obs_size=obs_size,
        frame_stack=frame_stack,
        seed=seed,
        max_episode_steps=max_episode_steps,
    )
    try:
        with Mp4Writer(Path(path), fps=lens.fps, height=FILM_HEIGHT) as film:
            lens.show = film.add
            info = _play(venv, act)
    finally:
        venv.close()
    episode, truncated = info["episode"], info["TimeLimit.truncated"]
    told = f"{env_id}: return {episode['r']:g} in {episode['l']:,} steps"
    if truncated:
        told += " (stopped by the step limit)"
    return FilmResult(
        path=film.path,
        episode_return=episode["r"],
        length=episode["l"],
        frames=film.pictures,
        fps=film.fps,
        truncated=truncated,
        caption=f"{caption_prefix} | {told}" if caption_prefix else told,
    )


def _play(venv: PixelVecEnv, act: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """One episode; what was said at its end."""
    observations = venv.reset()
    while True:
        venv.step_async(act(observations))
        observations, _, dones, infos = venv.step_wait()
        if dones[0]:
            return infos[0]


class _Lens(gym.Wrapper):
    """Shows every picture of the environment's first episode, its opening included.

    ``PixelVecEnv`` begins a second episode at once when the first has ended: that is not shown.
    """

    def __init__(self, env: gym.Env, fps: int) -> None:
        super().__init__(env)
        self.fps = fps
        self.show: Callable[[np.ndarray], None] = lambda picture: None
        self._episodes = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        self._episodes += 1
        self._show(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._show(observation)
        return observation, reward, terminated, truncated, info

    def _show(self, observation: Any) -> None:
        if self._episodes == 1:
            rendered = self.env.render() if self.env.render_mode == "rgb_array" else observation
            self.show(to_rgb(np.asarray(rendered)))


class _AtariOpening(gym.Wrapper):
    """Starts a game as ale-py's vector does: no-op frames, the last of them FIRE where wanted.

    Gymnasium's ``AtariPreprocessing`` knows no-ops but not FIRE.
    """

    def __init__(self, env: gym.Env, protocol: AtariProtocol) -> None:
        super().__init__(env)
        actions = env.get_wrapper_attr("get_action_meanings")()
        self._fire = (
            actions.index("FIRE") if protocol.use_fire_reset and "FIRE" in actions else None
        )
        self._noop_max = protocol.noop_max

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        noops = int(self.np_random.integers(self._noop_max)) if self._noop_max else 0
        presses = [0] * (noops if self._fire is None else noops - 1)
        if self._fire is not None:
            presses.append(self._fire)
        for action in presses:
            observation, _, terminated, _, info = self.env.step(action)
            if terminated:
                observation, info = self.env.reset()
        return observation, info


def _atari_lens(env_id: str, protocol: AtariProtocol) -> _Lens:
    """The bare game, one emulator frame at a time, behind a lens."""
    atari_rom(env_id)
    # Or its banner would run through progress bars.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    game = gym.make(
        env_id,
        frameskip=1,
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_space=protocol.full_action_space,
        # The step limit counts agent steps, without the opening; the emulator has no say in it.
        max_num_frames_per_episode=0,
        render_mode="rgb_array",
        disable_env_checker=True,
    )
    return _Lens(game, fps=ATARI_FPS)


def _pixel_lens(env_id: str) -> _Lens:
    """Any other environment behind a lens."""
    env = make_env(env_id)
    if "rgb_array" in env.metadata.get("render_modes", ()):
        env.close()
        env = make_env(env_id, render_mode="rgb_array")
    fps = round(env.metadata.get("render_fps", 30))
    if fps < 1:
        raise UserError(f'"{env_id}" says render_fps {fps}: expected at least 1')
    return _Lens(env, fps=fps)
