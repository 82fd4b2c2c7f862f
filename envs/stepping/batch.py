"""Environments that one process steps, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import is_wrapped

from envs.errors import UserError, describe_error
from envs.pictures import to_grey, to_rgb
from envs.stepping.checked import CheckedEnv, warn_once


class BatchFacts(NamedTuple):
    """Facts about the environments of a batch: their id, and the range of their actions."""

    env_id: str
    first_action: int
    num_actions: int


class StepResult(NamedTuple):
    """A step of one environment; ``reset_info`` is None unless the episode ended with it."""

    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    reset_info: dict[str, Any] | None


class EnvBatch:
    """Environments that this process steps one after the other.

    :class:`~envs.stepping.workers.WorkerBatch` does the same in another process, so both take a
    call by ``send`` and return its result from ``receive``; here ``receive`` makes the call.

    Attributes:
        frames: uint8 (2, environments, channels, size, size): the frames of the last step, and of
            the episodes that began with it. A reset fills the second.
        facts: of the environments.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], frames: np.ndarray) -> None:
        """Makes the environments.

        Raises:
            UserError: one cannot be made, does not observe images, or has other actions.
        """
        self.frames = frames
        self._envs = [_made(env_fn) for env_fn in env_fns]
        if len({id(env.unwrapped) for env in self._envs}) < len(self._envs):
            raise UserError("each function of env_fns must make an environment of its own")
        first = self._envs[0]
        env_id = first.spec.id if first.spec else type(first.unwrapped).__name__
        self._checked = [CheckedEnv(env, env_id) for env in self._envs]
        actions = self._checked[0].actions
        if any(env.actions != actions for env in self._checked):
            raise UserError("all functions of env_fns must make environments with equal actions")
        self.facts = BatchFacts(env_id, int(actions.start), int(actions.n))

    def send(self, method: str, *arguments: Any) -> None:
        """Takes a call of a method of this class."""
        self._call = (method, arguments)

    def receive(self) -> Any:
        """The result of the call.

        Raises:
            EnvironmentFailure: an environment raised an error, or broke Gymnasium's interface.
        """
        method, arguments = self._call
        return getattr(self, method)(*arguments)

    def reset(
        self, seeds: Sequence[int | None], options: Sequence[dict[str, Any] | None]
    ) -> list[dict[str, Any]]:
        """Starts an episode in every environment, and returns their infos."""
        return [self._reset(i, *each) for i, each in enumerate(zip(seeds, options, strict=True))]

    def step(self, actions: Sequence[int], last: Sequence[bool]) -> list[StepResult]:
        """Steps every environment; one that ends starts its next episode.

        Args:
            actions: one for each environment.
            last: whether the step limit ends the episode.
        """
        return [self._step(i, *each) for i, each in enumerate(zip(actions, last, strict=True))]

    def get(self, i: int, name: str) -> Any:
        """The attribute of an environment."""
        return self._envs[i].get_wrapper_attr(name)

    def set(self, i: int, name: str, value: Any) -> None:
        """Sets the attribute of an environment."""
        self._envs[i].set_wrapper_attr(name, value)

    def call(self, i: int, name: str, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        """Calls the method of an environment."""
        return self._envs[i].get_wrapper_attr(name)(*arguments, **named)

    def is_wrapped(self, i: int, wrapper_class: type[gym.Wrapper]) -> bool:
        """Whether an environment is wrapped."""
        return is_wrapped(self._envs[i], wrapper_class)

    def render(self, i: int) -> Any:
        """The rendered picture of an environment."""
        return self._envs[i].render()

    def close(self) -> None:
        """Closes all environments, and warns once of those that fail to close."""
        for env in self._envs:
            try:
                env.close()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                warn_once(f'closing "{self.facts.env_id}" raised {describe_error(error)}')

    def _reset(self, i: int, seed: int | None, options: dict[str, Any] | None) -> dict[str, Any]:
        image, info = self._checked[i].reset(seed=seed, options=options)
        self._write(1, i, image)
        return info

    def _step(self, i: int, action: int, last: bool) -> StepResult:
        action += self.facts.first_action
        image, reward, terminated, truncated, info = self._checked[i].step(action)
        self._write(0, i, image)
        truncated = truncated or last
        # The environment may change its dict when it starts again.
        info = dict(info)
        began = self._reset(i, None, None) if terminated or truncated else None
        return StepResult(reward, terminated, truncated, info, began)

    def _write(self, which: int, i: int, image: np.ndarray) -> None:
        """Writes the image as a frame (channels, height, width)."""
        target = self.frames[which, i]
        frame = to_grey(image) if len(target) == 1 else to_rgb(image)
        if frame.shape[:2] != target.shape[1:]:
            frame = cv2.resize(frame, target.shape[1:], interpolation=cv2.INTER_AREA)
        target[:] = frame if frame.ndim == 2 else frame.transpose(2, 0, 1)


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
