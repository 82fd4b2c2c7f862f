"""Films whole episodes in colour and at true speed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np

from envs.atari_single import check_game, make_atari_env, make_game
from envs.checks import ObservationColour, check_observation
from envs.config import EnvConfig
from envs.errors import EnvironmentFailure, UserError, describe_error
from envs.films.mp4 import Mp4Writer
from envs.pictures import rendered_picture, to_rgb
from envs.pixels import PixelVecEnv
from envs.protocol import AtariProtocol, get_protocol
from envs.registry import is_atari_id
from envs.stepping.checked import CheckedEnv
from envs.stepping.single import make_env

# The console drew one picture for each field of NTSC television; ale-py's metadata say 30.
ATARI_FPS = 60

DEFAULT_FPS = 30
# No screen shows more.
MAX_FPS = 1000

# Approximate height of films in pixels: twice an Atari screen.
FILM_HEIGHT = 420


@dataclass(frozen=True)
class FilmResult:
    """A film and its episode.

    Attributes:
        path: the MP4.
        episode_return: unclipped return of the episode, over all lives.
        length: agent steps.
        frames: pictures in the film.
        fps: pictures per second.
        truncated: whether a step limit ended the episode.
        caption: one line with return and length.
        no_render: why the film shows observations; None if it shows rendered pictures.
    """

    path: Path
    episode_return: float
    length: int
    frames: int
    fps: int
    truncated: bool
    caption: str
    no_render: str | None = None


def film_episode(
    env: str | EnvConfig,
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
    """Plays and films one episode; for an Atari game, every picture of the emulator.

    If an environment cannot render, the film shows its observations. If rendering fails during the
    episode, the film starts again with another episode.

    The episode is played as in evaluation (a lost life does not end it) in a new environment. The
    film is written under another name, and renamed when it is complete; missing directories are
    created and an old film is replaced.

    ``act`` maps observations uint8 (1, frame_stack * C, obs_size, obs_size) to actions (1,). The
    film ends after ``max_episode_steps`` agent steps, since some policies play for ever. ``env``
    is any of ``make_vec_env``, and the other arguments are those of ``AtariVecEnv``.
    ``caption_prefix`` comes before the caption.

    Raises:
        UserError: a value is not valid, or the film cannot be written.
    """
    check_observation(obs, obs_size, frame_stack)
    shape: dict[str, Any] = {"obs": obs, "obs_size": obs_size, "frame_stack": frame_stack}
    options = {**shape, "seed": seed, "max_episode_steps": max_episode_steps}
    no_render: str | None = None
    config = EnvConfig.of(env)
    if is_atari_id(config.env_id):
        played = get_protocol(protocol)
        check_game(config, played)
        game = make_game(config, played, "rgb_array")
        lens = _Lens(game, ATARI_FPS, lambda observation: to_rgb(np.asarray(game.render())))
        preprocessed = make_atari_env(config, played, obs, obs_size, lens)
        film, episode = _film(preprocessed, lens, act, Path(path), options)
    else:
        try:
            lens = _render_lens(config)
            film, episode = _film(lens, lens, act, Path(path), options)
        except (_CannotRender, EnvironmentFailure) as error:
            # Rendering alone may fail, for example without a display.
            no_render = str(error)
            lens = _observation_lens(config)
            film, episode = _film(lens, lens, act, Path(path), options)
    caption = f"{config.env_id}: return {episode['r']:g} in {episode['l']:,} steps"
    if episode["truncated"]:
        caption += " (stopped by the step limit)"
    return FilmResult(
        path=film.path,
        episode_return=episode["r"],
        length=episode["l"],
        frames=film.pictures,
        fps=film.fps,
        truncated=episode["truncated"],
        caption=f"{caption_prefix} | {caption}" if caption_prefix else caption,
        no_render=no_render,
    )


def why_not_rendered(env: str | EnvConfig, seed: int = 0) -> str | None:
    """Why films of an environment show its observations; None if they show rendered pictures.

    The function renders one picture.

    Raises:
        UserError: there is no such environment.
    """
    config = EnvConfig.of(env)
    if is_atari_id(config.env_id):
        return None
    try:
        lens = _render_lens(config)
    except _CannotRender as error:
        return str(error)
    try:
        CheckedEnv(lens, config.env_id).reset(seed)
    except (_CannotRender, EnvironmentFailure) as error:
        return str(error)
    finally:
        _close(lens)
    return None


def _film(
    env: gym.Env,
    lens: _Lens,
    act: Callable[[np.ndarray], np.ndarray],
    path: Path,
    options: dict[str, Any],
) -> tuple[Mp4Writer, dict[str, Any]]:
    """The film and its episode: return ``r``, length ``l``, and ``truncated``."""
    venv = PixelVecEnv([lambda: env], **options)
    try:
        with Mp4Writer(path, fps=lens.fps, height=FILM_HEIGHT) as film:
            lens.begin(film.add)
            info = _play(venv, act)
    finally:
        venv.close()
    return film, {**info["episode"], "truncated": info["TimeLimit.truncated"]}


def _play(venv: PixelVecEnv, act: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Plays one episode; the info of its end."""
    observations = venv.reset()
    while True:
        venv.step_async(act(observations))
        observations, _, dones, infos = venv.step_wait()
        if dones[0]:
            return infos[0]


class _CannotRender(UserError):  # noqa: N818
    """An environment does not render pictures; the message says why."""


class _Lens(gym.Wrapper):
    """Shows a picture of every step of the episode after ``begin``, including its start.

    ``PixelVecEnv`` starts another episode at once, which is not shown.
    """

    def __init__(self, env: gym.Env, fps: int, picture: Callable[[Any], np.ndarray]) -> None:
        """``picture``: observation -> picture, uint8 (height, width, 3)."""
        super().__init__(env)
        self.fps = fps
        self._show_to: Callable[[np.ndarray], None] = lambda picture: None
        self._picture = picture
        self._size: tuple[int, int] | None = None
        self._episodes = 0

    def begin(self, show: Callable[[np.ndarray], None]) -> None:
        """Shows the pictures of the next episode to ``show``."""
        # Wrappers around this one may have begun an episode already, to look at an observation.
        self._show_to, self._episodes = show, 0

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
        if self._episodes != 1:
            return
        picture = self._picture(observation)
        height, width = picture.shape[:2]
        self._size = self._size or (width, height)
        if (width, height) != self._size:
            # All pictures of a film have the first one's size.
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._show_to(picture)


def _render_lens(config: EnvConfig) -> _Lens:
    """Any other environment behind a lens that shows its rendered pictures.

    Raises:
        _CannotRender: it does not render; also raised later by ``reset`` and ``step``.
    """
    plain = make_env(config)
    modes = _metadata(plain).get("render_modes")
    _close(plain)
    if not isinstance(modes, Collection) or "rgb_array" not in modes:
        raise _CannotRender("it has no render mode rgb_array")
    try:
        env = make_env(config, render_mode="rgb_array")
    except UserError as error:
        takes_none = "unexpected keyword argument 'render_mode'" in str(error)
        reason = "its __init__ takes no render_mode" if takes_none else str(error)
        raise _CannotRender(reason) from error

    def picture(observation: Any) -> np.ndarray:
        try:
            rendered = env.render()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _CannotRender(f"render() raised {describe_error(error)}") from error
        try:
            return rendered_picture(rendered)
        except ValueError as error:
            raise _CannotRender(f"render() returned {error}") from None

    return _Lens(env, _fps(env), picture)


def _observation_lens(config: EnvConfig) -> _Lens:
    """Any other environment behind a lens that shows its observations."""
    env = make_env(config)
    make_picture = CheckedEnv(env, config.env_id).make_picture
    return _Lens(env, _fps(env), lambda observation: to_rgb(make_picture(observation)))


def _metadata(env: gym.Env) -> dict[str, Any]:
    metadata = None
    # A property may raise anything.
    with contextlib.suppress(Exception):
        metadata = env.metadata
    return metadata if isinstance(metadata, dict) else {}


def _fps(env: gym.Env) -> int:
    """The environment's own pictures per second, or 30 without a valid rate."""
    try:
        fps = float(_metadata(env).get("render_fps") or DEFAULT_FPS)
    except (TypeError, ValueError):
        return DEFAULT_FPS
    # The comparison is false for NaN.
    return max(1, round(fps)) if 0 < fps <= MAX_FPS else DEFAULT_FPS


def _close(env: gym.Env) -> None:
    # The pictures were taken, whether closing fails or not.
    with contextlib.suppress(Exception, SystemExit):
        env.close()
