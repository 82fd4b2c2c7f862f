"""Shows the pictures of an environment while it is played: rendered ones, or its observations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any

import cv2
import gymnasium as gym
import numpy as np

from envs.config import EnvConfig
from envs.errors import UserError, describe_error
from envs.pictures import rendered_picture, to_rgb
from envs.stepping.checked import CheckedEnv
from envs.stepping.single import make_env

DEFAULT_FPS = 30
# No screen shows more.
MAX_FPS = 1000


class CannotRender(UserError):  # noqa: N818
    """An environment does not render pictures; the message says why."""


class Lens(gym.Wrapper):
    """Shows a picture of every step of the episode after ``begin``, including its start.

    ``PixelVecEnv`` starts another episode at once, which is not shown.

    Attributes:
        fps: pictures per second.
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
        """Shows the pictures of the next episode, uint8 (height, width, 3), to ``show``."""
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


def render_lens(config: EnvConfig) -> Lens:
    """An environment, but no Atari game, behind a lens that shows its rendered pictures.

    Raises:
        CannotRender: it does not render; also raised later by ``reset`` and ``step``.
    """
    plain = make_env(config)
    modes = _metadata(plain).get("render_modes")
    close(plain)
    if not isinstance(modes, Collection) or "rgb_array" not in modes:
        raise CannotRender("it has no render mode rgb_array")
    try:
        env = make_env(config, render_mode="rgb_array")
    except UserError as error:
        takes_none = "unexpected keyword argument 'render_mode'" in str(error)
        reason = "its __init__ takes no render_mode" if takes_none else str(error)
        raise CannotRender(reason) from error

    def picture(observation: Any) -> np.ndarray:
        try:
            rendered = env.render()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise CannotRender(f"render() raised {describe_error(error)}") from error
        try:
            return rendered_picture(rendered)
        except ValueError as error:
            raise CannotRender(f"render() returned {error}") from None

    return Lens(env, _fps(env), picture)


def observation_lens(config: EnvConfig) -> Lens:
    """An environment, but no Atari game, behind a lens that shows its observations."""
    env = make_env(config)
    make_picture = CheckedEnv(env, config.env_id).make_picture
    return Lens(env, _fps(env), lambda observation: to_rgb(make_picture(observation)))


def close(env: gym.Env) -> None:
    """Closes an environment whose pictures were taken, whether closing fails or not."""
    with contextlib.suppress(Exception, SystemExit):
        env.close()


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
