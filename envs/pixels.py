"""Any Gymnasium environment with image observations and discrete actions, as a VecEnv."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from envs.checks import ObservationColour, check_actions, check_count, check_observation
from envs.config import EnvConfig
from envs.episodes import EpisodeVecEnv
from envs.errors import UserError
from envs.registry import find_spec
from envs.stepping.batch import EnvBatch, StepResult
from envs.stepping.single import make_env
from envs.stepping.workers import WorkerBatch


class PixelVecEnv(EpisodeVecEnv):
    """Environments stepped one after the other in this process, or side by side in several.

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
        workers: int = 0,
    ) -> None:
        """Makes the environments; see :class:`AtariVecEnv` for the other arguments.

        Each function of ``env_fns`` returns a new environment. Images are uint8 (height, width),
        (height, width, 1 or 3) or (1 or 3, height, width), with any bounds. Without
        ``max_episode_steps`` there is no limit.

        ``workers`` processes share the environments; 0 steps them in this process, with the same
        results. Functions and infos are then pickled, and a script that makes environments must do
        so under ``if __name__ == "__main__":``, as for SB3's ``SubprocVecEnv``.

        Raises:
            UserError: a value is not valid, observations are not images or actions not discrete.
        """
        count = check_count("num_envs", len(env_fns), 1)
        channels = check_observation(obs, obs_size, frame_stack)
        if max_episode_steps is not None:
            check_count("max_episode_steps", max_episode_steps, 1)
        frame = (channels, int(obs_size), int(obs_size))
        shares = min(check_count("workers", workers, 0), count) or 1
        indices = np.array_split(np.arange(count), shares)
        self._slices = [slice(int(own[0]), int(own[-1]) + 1) for own in indices]
        self._batches: list[EnvBatch | WorkerBatch] = []
        with ExitStack() as opened:
            for own in self._slices:
                shape = (2, own.stop - own.start, *frame)
                batch: EnvBatch | WorkerBatch = (
                    WorkerBatch(env_fns[own], shape)
                    if workers
                    else EnvBatch(env_fns, np.zeros(shape, np.uint8))
                )
                opened.callback(batch.close)
                self._batches.append(batch)
            facts = [batch.facts for batch in self._batches]
            self.env_id, self._first_action, num_actions = facts[0]
            if any(other[1:] != facts[0][1:] for other in facts):
                raise UserError(
                    "all functions of env_fns must make environments with equal actions"
                )
            self._max_episode_steps = max_episode_steps
            super().__init__(count, num_actions, channels, int(obs_size), frame_stack)
            self._stacks = np.zeros((count, frame_stack * channels, *frame[1:]), dtype=np.uint8)
            self._stepping = False
            self.seed(seed)
            # The caller closes the environments from here on.
            opened.pop_all()

    def reset(self) -> np.ndarray:
        """Restarts all episodes and returns their observations.

        The seeds of the last ``seed`` call, and SB3's ``set_options``, are used once. An unfinished
        step is dropped.

        Raises:
            EnvironmentFailure: as ``step_wait``.
        """
        self._stepping = False
        for batch, own in zip(self._batches, self._slices, strict=True):
            batch.send("reset", self._seeds[own], [each or None for each in self._options[own]])
        self.reset_infos = self._receive()
        self._returns[:] = 0
        self._lengths[:] = 0
        for i, frame in enumerate(self._frames(1)):
            self._begin_stack(i, frame)
        self._reset_seeds()
        self._reset_options()
        self._started = True
        return self._stacks.copy()

    def step_async(self, actions: np.ndarray) -> None:
        """Starts a step with actions, integers (num_envs,).

        In this process, ``step_wait`` does all the work.

        Raises:
            UserError: the actions are not valid.
            RuntimeError: called before ``reset``.
        """
        self._check_started()
        taken = check_actions(actions, self.num_envs, self._num_actions).tolist()
        last = (self._lengths + 1 == self._max_episode_steps).tolist()
        for batch, own in zip(self._batches, self._slices, strict=True):
            batch.send("step", taken[own], last[own])
        self._stepping = True

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Waits for all environments.

        Returns:
            observations, rewards float32 (num_envs,), dones bool (num_envs,) and a new info for
            each environment, as described for the class.

        Raises:
            EnvironmentFailure: an environment raised an error or broke Gymnasium's interface, or a
                process died.
        """
        if not self._stepping:
            raise RuntimeError("step_wait() was called without step_async()")
        self._stepping = False
        results: list[StepResult] = self._receive()
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        dones = np.zeros(self.num_envs, dtype=bool)
        frames, first_frames = self._frames(0), self._frames(1)
        for i, (reward, terminated, truncated, info, reset_info) in enumerate(results):
            self._push(i, frames[i])
            self._returns[i] += reward
            self._lengths[i] += 1
            rewards[i] = reward
            if reset_info is not None:
                dones[i] = True
                self._report_end(i, info, self._stacks[i], truncated and not terminated)
                self.reset_infos[i] = reset_info
                self._begin_stack(i, first_frames[i])
        return self._stacks.copy(), rewards, dones, [result.info for result in results]

    def close(self) -> None:
        """Closes all environments and ends their processes; warns of one that fails to close."""
        with ExitStack() as stack:
            for batch in self._batches:
                stack.callback(batch.close)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The rendered picture of each environment; None without a render mode."""
        return self._each(None, "render")

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of this object if it has one, otherwise of the environments."""
        if attr_name in vars(self):
            return [getattr(self, attr_name) for _ in self._get_indices(indices)]
        return self._each(indices, "get", attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute of the environments."""
        self._each(indices, "set", attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Calls the method of the environments."""
        return self._each(indices, "call", method_name, method_args, method_kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether wrapped; true for SB3's ``Monitor``, since this class makes its reports."""
        if issubclass(wrapper_class, Monitor):
            return [True for _ in self._get_indices(indices)]
        return self._each(indices, "is_wrapped", wrapper_class)

    def _each(self, indices: VecEnvIndices, method: str, *arguments: Any) -> list[Any]:
        """The results of a method of ``EnvBatch`` for each chosen environment."""
        results = []
        for i in self._get_indices(indices):
            batch, own = next(
                each for each in zip(self._batches, self._slices, strict=True) if i < each[1].stop
            )
            batch.send(method, i - own.start, *arguments)
            results.append(batch.receive())
        return results

    def _receive(self) -> list[Any]:
        """The results of all environments; the first error is raised once all have answered."""
        results: list[Any] = []
        errors: list[Exception] = []
        for batch in self._batches:
            try:
                results += batch.receive()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return results

    def _frames(self, which: int) -> list[np.ndarray]:
        """The frames of the last step (0) or of the episodes that began (1), one each."""
        return [frame for batch in self._batches for frame in batch.frames[which]]

    def _begin_stack(self, i: int, frame: np.ndarray) -> None:
        self._stacks[i] = 0
        self._push(i, frame)

    def _push(self, i: int, frame: np.ndarray) -> None:
        """Adds the newest frame to the stack of environment ``i``."""
        channels = len(frame)
        self._stacks[i, :-channels] = self._stacks[i, channels:]
        self._stacks[i, -channels:] = frame


def make_pixel_vec_env(env: str | EnvConfig, num_envs: int, **options: Any) -> PixelVecEnv:
    """Makes environments of a registered id; ``options`` are arguments of ``PixelVecEnv``.

    Raises:
        UserError: as ``make_env`` and ``PixelVecEnv``.
    """
    config = EnvConfig.of(env)
    make = functools.partial(make_env, config, find_spec(config.env_id))
    count = check_count("num_envs", num_envs, 1)
    return PixelVecEnv([make] * count, workers=config.workers, **options)
