"""Checks a user's environment: its errors become one line, and its images 0..255."""

from __future__ import annotations

import functools
import logging
import math
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.errors import EnvironmentFailure, UserError, describe_error
from envs.pictures import make_stretch, uniform_bounds

# An image without brighter pixels is black to the eye, and nearly black to a network.
_DARK = 15

_GREATEST = float(np.finfo(np.float32).max)

IMAGES = "uint8 (height, width), (height, width, 1 or 3) or (1 or 3, height, width)"
"""What images are, for messages."""

_RESET = "observation, info"
_STEP = "observation, reward, terminated, truncated, info"
_OLDER_GYM = " The older gym returned less: see Gymnasium's migration guide"

_log = logging.getLogger(__name__)


class CheckedEnv:
    """A checked environment with image observations and discrete actions.

    Its errors, and violations of Gymnasium's interface, become ``EnvironmentFailure``. Images are
    uint8 of 0..255: each pixel is stretched from the bounds of the observation space.

    Attributes:
        env: the environment.
        actions: its actions.
        make_picture: observation -> uint8 of 0..255 in the same layout.
    """

    def __init__(self, env: gym.Env, name: str) -> None:
        """Checks the spaces.

        Raises:
            UserError: its observations are not images, or its actions are not discrete.
        """
        self.env = env
        self._name = name
        self.actions = _check_spaces(name, env)
        assert isinstance(env.observation_space, spaces.Box)
        self.make_picture = picture_maker(env.observation_space, name)
        self._begun = False

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode and returns its first picture and info.

        Raises:
            EnvironmentFailure: the environment raised an error, or broke the interface.
        """
        with self._failures():
            result = self.env.reset(seed=seed, options=options)
            observation, info = self._unpack("reset", result, _RESET)
            picture = self.make_picture(observation)
        first, self._begun = not self._begun, True
        if first and picture.any() and picture.max() <= _DARK:
            warn_once(
                f'the first observation of "{self._name}" has no value above {_DARK} of 255: nearly'
                " black. Where all are so, declare the greatest value in observation_space: such"
                " bounds are stretched to 0..255"
            )
        return picture, self._info("reset", info)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes a step and returns picture, reward, terminated, truncated and info.

        Raises:
            EnvironmentFailure: the environment raised an error, or broke the interface.
        """
        with self._failures():
            unpacked = self._unpack("step", self.env.step(action), _STEP)
            observation, reward, terminated, truncated, info = unpacked
            picture = self.make_picture(observation)
        return (
            picture,
            self._number("reward", reward),
            bool(self._number("terminated", terminated)),
            bool(self._number("truncated", truncated)),
            self._info("step", info),
        )

    def _number(self, what: str, value: Any) -> float:
        # Nearly every value has one of these types, and the other branch is slow.
        if type(value) is float or type(value) is bool:
            number: float = value
        else:
            try:
                number = float(np.asarray(value, dtype=np.float64).item())
            # An object of the environment may raise anything.
            except Exception:
                number = math.nan
        # Rewards are float32. The comparison is false for NaN.
        if not abs(number) <= _GREATEST:
            raise EnvironmentFailure(
                f'step() of "{self._name}" returns the {what} {_short(value)}: expected one finite'
                " number"
            )
        return number

    def _info(self, method: str, info: Any) -> dict[str, Any]:
        if not isinstance(info, dict):
            raise EnvironmentFailure(
                f'{method}() of "{self._name}" returns the info {_short(info)}: expected a dict'
            )
        return info

    def _unpack(self, method: str, result: Any, names: str) -> tuple[Any, ...]:
        several = isinstance(result, tuple | list)
        if not several or len(result) != len(names.split(", ")):
            found = f"{len(result)} values" if several else type(result).__name__
            raise EnvironmentFailure(
                f'{method}() of "{self._name}" returns {found}: expected ({names}).{_OLDER_GYM}'
            )
        return tuple(result)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (UserError, KeyboardInterrupt):
            raise
        # Neither sys.exit() nor a panic of a Rust library, which is not an Exception, may end a
        # training silently.
        except BaseException as error:
            raise EnvironmentFailure(_explain(self._name, error)) from error


def picture_maker(space: spaces.Box, name: str) -> Callable[[Any], np.ndarray]:
    """A function: observation of a uint8 image space -> uint8 of 0..255.

    It raises ``EnvironmentFailure`` for an observation outside of the space.
    """
    if (space.low >= space.high).all():
        warn_once(
            f'the observation space of "{name}" holds one image only: its observations are not'
            " stretched, but taken as 0..255"
        )
    stretch = make_stretch(space)
    low, high = uniform_bounds(space) or (space.low, space.high)

    def make_picture(observation: Any) -> np.ndarray:
        image = np.asarray(observation)
        if image.dtype != np.uint8 or not _is_image_shape(image.shape):
            image = _exact_bytes(image, space, name)
        if stretch is None:
            return image
        _check_bounds(image, low, high, name)
        return stretch(image)

    return make_picture


def _check_bounds(
    image: np.ndarray, low: int | np.ndarray, high: int | np.ndarray, name: str
) -> None:
    if isinstance(low, np.ndarray) and image.shape != low.shape:
        raise EnvironmentFailure(
            f'"{name}" gives an observation of shape {image.shape}, but its space declares'
            f" {low.shape}"
        )
    beyond = (image < low) | (image > high)
    if beyond.any():
        value, least, most = (
            np.broadcast_to(x, image.shape)[beyond][0] for x in (image, low, high)
        )
        raise EnvironmentFailure(
            f'"{name}" shows a value of {value} where its observation space declares'
            f" {least}..{most}: expected true bounds, or 0..255"
        )


def _exact_bytes(image: np.ndarray, space: spaces.Box, name: str) -> np.ndarray:
    """The image as uint8, if the conversion is exact."""
    if _is_image_shape(image.shape) and image.dtype.kind in "buif":
        with np.errstate(invalid="ignore"):
            exact = image.astype(np.uint8)
        if (exact == image).all():
            return exact
    raise EnvironmentFailure(
        f'"{name}" gives an observation {image.dtype} {image.shape}, but its space declares uint8'
        f" {space.shape}"
    )


@functools.cache
def warn_once(line: str) -> None:
    """Warns of something odd, once however many environments it holds for."""
    _log.warning(line)


def _explain(name: str, error: BaseException) -> str:
    described = describe_error(error)
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    # Gymnasium's wrappers are the first to unpack the environment's results.
    if innermost.startswith(os.path.join(os.path.dirname(gym.__file__), "")):
        for method, names in (("step", _STEP), ("reset", _RESET)):
            if f"values to unpack (expected {len(names.split(', '))}" in described:
                return f'{method}() of "{name}" must return ({names}).{_OLDER_GYM}'
    return f'"{name}" raised {described}'


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."


def _is_image_shape(shape: tuple[int, ...]) -> bool:
    layout = len(shape) == 2 or (len(shape) == 3 and (shape[-1] in (1, 3) or shape[0] in (1, 3)))
    return layout and 0 not in shape


def is_image_space(space: Any) -> bool:
    """Whether observations of this space are images that agents can learn from."""
    box = isinstance(space, spaces.Box)
    return box and space.dtype == np.uint8 and _is_image_shape(space.shape)


def _check_spaces(name: str, env: gym.Env) -> spaces.Discrete:
    """Checks that observations are images, and returns the action space."""
    observations: Any = getattr(env, "observation_space", None)
    actions = getattr(env, "action_space", None)
    if not is_image_space(observations):
        hint = (
            "to observe what it renders, give --env-kwargs render_mode rgb_array --env-wrapper"
            " gymnasium.wrappers:AddRenderObservation"
        )
        if isinstance(observations, spaces.Box) and _is_image_shape(observations.shape):
            hint = (
                "gymnasium.wrappers.TransformObservation turns each into uint8, such as"
                " (255 * x).astype(np.uint8)"
            )
        raise UserError(
            f'"{name}" has the observations {shown_space(observations)}: expected images,'
            f" {IMAGES}; {hint}"
        )
    if not isinstance(actions, spaces.Discrete):
        raise UserError(
            f'"{name}" has the actions {shown_space(actions)}: expected a Discrete space'
        )
    return actions


def shown_space(space: Any) -> str:
    """A space in one short line, without arrays of bounds or counts."""
    if isinstance(space, spaces.Box):
        return f"Box {space.dtype} {space.shape}"
    text = " ".join(str(space).split())
    if len(text) > 100 and isinstance(space, spaces.Space):
        return f"{type(space).__name__} {space.shape or ''}".rstrip()
    return text
