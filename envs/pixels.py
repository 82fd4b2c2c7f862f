"""Any Gymnasium environment with image observations and discrete actions, as a VecEnv."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from envs.checked import CheckedEnv
from envs.checks import ObservationColour, check_actions, check_count, check_observation
from envs.episodes import EpisodeVecEnv
from envs.errors import UserError, describe_error
from envs.pictures import to_grey, to_rgb
from envs.registry import find_spec

_log = logging.getLogger(__name__)


class PixelVecEnv(EpisodeVecEnv):
    """Environments stepped one after the other in this process.

    Observations are uint8 (num_envs, frame_stack * C, obs_size, obs_size), oldest frame first, with
    C = 1 for grey and 3 for colour; an episode starts with zero frames and its first frame. Frames
    are stretched from the bounds of the observation space to 0..255, converted to grey (or colour)
    and then resized with OpenCV's area interpolation. Rewards are float32 and do not change. An
    episode that ends is followed by the next one in the same step. Each step returns new arrays.

    ``infos[i]`` holds the environment's info and, if ``dones[i]``: ``terminal_observation``,
    ``TimeLimit.truncated`` and ``episode`` (``r`` return, ``l`` length in steps, ``t`` seconds
    since this object was created), as SB3's ``Monitor`` reports it; ``env_is_wrapped(Monitor)`` is
    therefore true.

    Attributes:
        env_id: id of the first environment, or the name of its class if it has no id.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        *,
        obs: ObservationColour = "grey",
        obs_size: int = 84,
        frame_stack: int = 4,
        seed: int = 0,
        max_episode_steps: int | None = None,
    ) -> None:
        """Makes the environments; see :class:`AtariVecEnv` for the other arguments.

        Each function of ``env_fns`` returns a new environment. Images are uint8 (height, width),
        (height, width, 1 or 3) or (1 or 3, height, width), with any bounds. Without
        ``max_episode_steps`` there is no limit.

        Raises:
            UserError: a value is not valid, observations are not images or actions not discrete.
        """
        check_count("num_envs", len(env_fns), 1)
        channels = check_observation(obs, obs_size, frame_stack)
        if max_episode_steps is not None:
            check_count("max_episode_steps", max_episode_steps, 1)
        self._envs = [_made(env_fn) for env_fn in env_fns]
        if len({id(env.unwrapped) for env in self._envs}) < len(self._envs):
            raise UserError("each function of env_fns must make an environment of its own")
        first = self._envs[0]
        self.env_id = first.spec.id if first.spec else type(first.unwrapped).__name__
        self._checked = [CheckedEnv(env, self.env_id) for env in self._envs]
        actions = self._checked[0].actions
        if any(env.actions != actions for env in self._checked):
            raise UserError("all functions of env_fns must make environments with equal actions")
        self._first_action = int(actions.start)
        self._max_episode_steps = max_episode_steps
        super().__init__(len(self._envs), int(actions.n), channels, obs_size, frame_stack)
        shape = (self.num_envs, frame_stack * channels, obs_size, obs_size)
        self._stacks = np.zeros(shape, dtype=np.uint8)
        self._actions: np.ndarray | None = None
        self.seed(seed)

    def reset(self) -> np.ndarray:
        """Restarts all episodes and returns their observations.

        The seeds of the last ``seed`` call, and SB3's ``set_options``, are used once.
        """
        for i in range(self.num_envs):
            self._begin_episode(i, seed=self._seeds[i], options=self._options[i] or None)
        self._reset_seeds()
        self._reset_options()
        self._actions = None
        self._started = True
        return self._stacks.copy()

    def step_async(self, actions: np.ndarray) -> None:
        """Stores the actions, integers (num_envs,), for ``step_wait``.

        Raises:
            UserError: the actions are not valid.
            RuntimeError: called before ``reset``.
        """
        self._check_started()
        self._actions = check_actions(actions, self.num_envs, self._num_actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Steps all environments.

        Returns:
            observations, rewards float32 (num_envs,), dones bool (num_envs,) and a new info for
            each environment, as described for the class.

        Raises:
            EnvironmentFailure: an environment raised an error, or broke Gymnasium's interface.
        """
        if self._actions is None:
            raise RuntimeError("step_wait() was called without step_async()")
        actions, self._actions = self._actions.tolist(), None
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        dones = np.zeros(self.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = []
        for i, env in enumerate(self._checked):
            image, reward, terminated, truncated, info = env.step(actions[i] + self._first_action)
            infos.append(dict(info))
            self._push(i, image)
            self._returns[i] += reward
            self._lengths[i] += 1
            truncated = truncated or self._lengths[i] == self._max_episode_steps
            rewards[i] = reward
            dones[i] = terminated or truncated
            if dones[i]:
                truncated = bool(truncated and not terminated)
                self._report_end(i, infos[i], self._stacks[i], truncated)
                self._begin_episode(i)
        return self._stacks.copy(), rewards, dones, infos

    def close(self) -> None:
        """Closes all environments, and warns of one that fails to close."""
        for env in self._envs:
            try:
                env.close()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                _log.warning('closing "%s" raised %s', self.env_id, describe_error(error))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The rendered picture of each environment; None without a render mode."""
        return [env.render() for env in self._envs]  # type: ignore[misc]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of this object if it has one, otherwise of the environments."""
        envs = [self._envs[i] for i in self._get_indices(indices)]
        if attr_name in vars(self):
            return [getattr(self, attr_name) for _ in envs]
        return [env.get_wrapper_attr(attr_name) for env in envs]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute of the environments."""
        for i in self._get_indices(indices):
            self._envs[i].set_wrapper_attr(attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Calls the method of the environments."""
        return [
            self._envs[i].get_wrapper_attr(method_name)(*method_args, **method_kwargs)
            for i in self._get_indices(indices)
        ]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether wrapped; true for SB3's ``Monitor``, since this class makes its reports."""
        return [
            issubclass(wrapper_class, Monitor) or is_wrapped(self._envs[i], wrapper_class)
            for i in self._get_indices(indices)
        ]

    def _begin_episode(
        self, i: int, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> None:
        image, self.reset_infos[i] = self._checked[i].reset(seed=seed, options=options)
        self._stacks[i] = 0
        self._push(i, image)
        self._returns[i] = 0
        self._lengths[i] = 0

    def _push(self, i: int, image: np.ndarray) -> None:
        """Adds the newest frame to the stack of environment ``i``."""
        channels = self.frame_stacking.channels
        self._stacks[i, :-channels] = self._stacks[i, channels:]
        self._stacks[i, -channels:] = self._to_frame(image)

    def _to_frame(self, image: np.ndarray) -> np.ndarray:
        """The image as a frame (channels, height, width)."""
        frame = to_grey(image) if self.frame_stacking.channels == 1 else to_rgb(image)
        size = self._stacks.shape[-2:]
        if frame.shape[:2] != size:
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        return frame[None] if frame.ndim == 2 else frame.transpose(2, 0, 1)


def _made(env_fn: Callable[[], gym.Env]) -> gym.Env:
    try:
        env = env_fn()
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"cannot make an environment: {describe_error(error)}") from error
    if not isinstance(env, gym.Env):
        raise UserError(f"env_fns makes a {type(env).__name__}: expected a gymnasium.Env")
    return env


def make_env(env_id: str, render_mode: str | None = None) -> gym.Env:
    """One environment of a registered id; ``module:Id-v0`` imports the module first.

    Raises:
        UserError: the id is unknown, or a dependency of the environment is not installed.
    """
    spec = find_spec(env_id)
    # Some environments do not have the argument, and gym.make would pass None to them.
    options: dict[str, Any] = {}
    if render_mode is not None:
        # Gymnasium's checker does not render with a render_fps of 0.
        options = {"render_mode": render_mode, "disable_env_checker": True}
    try:
        return gym.make(spec, **options)
    except (gym.error.Error, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f'cannot make the environment "{env_id}": {reason}') from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        reason = describe_error(error)
        raise UserError(f'cannot make the environment "{env_id}": {reason}') from error


def make_pixel_vec_env(env_id: str, num_envs: int, **options: Any) -> PixelVecEnv:
    """Makes environments of a registered id; ``options`` are arguments of ``PixelVecEnv``.

    Raises:
        UserError: as ``make_env`` and ``PixelVecEnv``.
    """
    make = functools.partial(make_env, env_id)
    return PixelVecEnv([make] * check_count("num_envs", num_envs, 1), **options)
