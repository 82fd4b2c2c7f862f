"""Films whole episodes in colour and at true speed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ale_py
import cv2
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing

from envs.checked import CheckedEnv
from envs.checks import ObservationColour, check_observation
from envs.errors import EnvironmentFailure, UserError, describe_error
from envs.films.mp4 import Mp4Writer
from envs.pictures import rendered_picture, to_rgb
from envs.pixels import PixelVecEnv, make_env
from envs.protocol import AtariProtocol, get_protocol
from envs.registry import atari_rom, find_spec, is_atari

# The console drew one picture for each field of NTSC television; ale-py's metadata say 30.
ATARI_FPS = 60

DEFAULT_FPS = 30
# More than any screen shows.
MAX_FPS = 1000

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
        caption: one line with return and length.
        no_render: why the film shows observations; None where it shows what was rendered.
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

    An environment that cannot render pictures is filmed by its observations. Where rendering fails
    on the way, the film begins again with another episode.

    The episode is played as in evaluation (a lost life does not end it) in an environment of its
    own, whose observations are made like those of ``make_vec_env``. The film is written aside and
    takes its path when it is whole.

    Args:
        env_id: any id that ``make_vec_env`` takes.
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
    shape: dict[str, Any] = {"obs": obs, "obs_size": obs_size, "frame_stack": frame_stack}
    options = {**shape, "seed": seed, "max_episode_steps": max_episode_steps}
    no_render: str | None = None
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
        film, episode = _film(env, lens, act, Path(path), options)
    else:
        try:
            lens = _render_lens(env_id)
            film, episode = _film(lens, lens, act, Path(path), options)
        except (_CannotRender, EnvironmentFailure) as error:
            # A failure may come of rendering alone, as where there is no display.
            no_render = str(error)
            lens = _observation_lens(env_id)
            film, episode = _film(lens, lens, act, Path(path), options)
    caption = f"{env_id}: return {episode['r']:g} in {episode['l']:,} steps"
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


def why_not_rendered(env_id: str, seed: int = 0) -> str | None:
    """Why films of an environment show its observations, or None if they show what it renders.

    One picture is rendered to find out.

    Raises:
        UserError: there is no such environment.
    """
    if env_id.startswith("ALE/") or is_atari(find_spec(env_id)):
        return None
    try:
        lens = _render_lens(env_id)
    except _CannotRender as error:
        return str(error)
    try:
        CheckedEnv(lens, env_id).reset(seed)
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
    """The film, and the filmed episode: return ``r``, length ``l``, whether ``truncated``."""
    venv = PixelVecEnv([lambda: env], **options)
    try:
        with Mp4Writer(path, fps=lens.fps, height=FILM_HEIGHT) as film:
            lens.show = film.add
            info = _play(venv, act)
    finally:
        venv.close()
    return film, {**info["episode"], "truncated": info["TimeLimit.truncated"]}


def _play(venv: PixelVecEnv, act: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """One episode; what was said at its end."""
    observations = venv.reset()
    while True:
        venv.step_async(act(observations))
        observations, _, dones, infos = venv.step_wait()
        if dones[0]:
            return infos[0]


class _CannotRender(UserError):  # noqa: N818
    """An environment does not render pictures; says why."""


class _Lens(gym.Wrapper):
    """Shows a picture of every step of the environment's first episode, its opening included.

    ``PixelVecEnv`` begins a second episode at once when the first has ended: that is not shown.
    """

    def __init__(self, env: gym.Env, fps: int, picture: Callable[[Any], np.ndarray]) -> None:
        """``picture`` makes a picture, uint8 (height, width, 3), of an observation."""
        super().__init__(env)
        self.fps = fps
        self.show: Callable[[np.ndarray], None] = lambda picture: None
        self._picture = picture
        self._size: tuple[int, int] | None = None
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
        if self._episodes != 1:
            return
        picture = self._picture(observation)
        height, width = picture.shape[:2]
        self._size = self._size or (width, height)
        if (width, height) != self._size:
            # All pictures of a film have the first one's size.
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self.show(picture)


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
    return _Lens(game, ATARI_FPS, lambda observation: to_rgb(np.asarray(game.render())))


def _render_lens(env_id: str) -> _Lens:
    """Any other environment behind a lens that shows what it renders.

    Raises:
        _CannotRender: it does not; or, from ``reset`` and ``step``, it turns out not to.
    """
    plain = make_env(env_id)
    modes = _metadata(plain).get("render_modes")
    _close(plain)
    if not isinstance(modes, Collection) or "rgb_array" not in modes:
        raise _CannotRender("it has no render mode rgb_array")
    try:
        env = make_env(env_id, render_mode="rgb_array")
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


def _observation_lens(env_id: str) -> _Lens:
    """Any other environment behind a lens that shows its observations."""
    env = make_env(env_id)
    make_picture = CheckedEnv(env, env_id).make_picture
    return _Lens(env, _fps(env), lambda observation: to_rgb(make_picture(observation)))


def _metadata(env: gym.Env) -> dict[str, Any]:
    metadata = None
    # It may be a property, which may raise anything.
    with contextlib.suppress(Exception):
        metadata = env.metadata
    return metadata if isinstance(metadata, dict) else {}


def _fps(env: gym.Env) -> int:
    """The pictures in a second that an environment asks for, or 30 where it names no such rate."""
    try:
        fps = float(_metadata(env).get("render_fps") or DEFAULT_FPS)
    except (TypeError, ValueError):
        return DEFAULT_FPS
    # Written so that NaN fails, too.
    return max(1, round(fps)) if 0 < fps <= MAX_FPS else DEFAULT_FPS


def _close(env: gym.Env) -> None:
    # One that fails to close has been looked at all the same.
    with contextlib.suppress(Exception, SystemExit):
        env.close()
