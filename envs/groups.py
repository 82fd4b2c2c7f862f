"""Groups of environments that can step in turn, and step as one where that is not wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from envs.checks import check_seed, derive_seeds


class GroupedVecEnv(VecEnv):
    """Vector environments of one kind, side by side as one.

    Who knows of the groups may step each by itself: while the policy acts for one, the others play.

    Attributes:
        groups: the vector environments.
        slices: which environments of this one each group holds.

    Args:
        groups: at least one, of the same spaces; this object closes them.
    """

    def __init__(self, groups: Sequence[VecEnv]) -> None:
        ends = np.cumsum([group.num_envs for group in groups]).tolist()
        first = groups[0]
        self.groups = list(groups)
        self.slices = [
            slice(end - group.num_envs, end) for group, end in zip(groups, ends, strict=True)
        ]
        super().__init__(ends[-1], first.observation_space, first.action_space)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seeds the next ``reset``; each group gets a seed derived from this one.

        Args:
            seed: 0 <= seed < 2**31; None draws one from numpy's global generator.
        """
        if seed is None:
            seed = int(np.random.randint(2**31 - 1))
        seeds = derive_seeds(check_seed(seed), len(self.groups))
        return [s for group, own in zip(self.groups, seeds, strict=True) for s in group.seed(own)]

    def reset(self) -> np.ndarray:
        """Starts every environment anew; observations (environments, channels, height, width)."""
        observations = np.concatenate([group.reset() for group in self.groups])
        self.reset_infos = [info for group in self.groups for info in group.reset_infos]
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Sets every environment going."""
        for group, envs in zip(self.groups, self.slices, strict=True):
            group.step_async(actions[envs])

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Waits for every environment, and joins what the groups return."""
        return join_steps([group.step_wait() for group in self.groups])  # type: ignore[misc]

    def close(self) -> None:
        """Closes every group."""
        for group in self.groups:
            group.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of each environment asked for."""
        values = [value for group in self.groups for value in group.get_attr(attr_name)]
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute in each environment asked for."""
        for group, own in self._split(indices):
            group.set_attr(attr_name, value, own)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Calls the method of each environment asked for."""
        return [
            result
            for group, own in self._split(indices)
            for result in group.env_method(method_name, *method_args, indices=own, **method_kwargs)
        ]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether each environment asked for is wrapped."""
        wrapped = [one for group in self.groups for one in group.env_is_wrapped(wrapper_class)]
        return [wrapped[i] for i in self._get_indices(indices)]

    def _split(self, indices: VecEnvIndices) -> list[tuple[VecEnv, list[int]]]:
        """The groups that hold the environments asked for, and their numbers there."""
        wanted = list(self._get_indices(indices))
        split = []
        for group, envs in zip(self.groups, self.slices, strict=True):
            own = [i - envs.start for i in wanted if envs.start <= i < envs.stop]
            if own:
                split.append((group, own))
        return split


Step = tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]


def join_steps(steps: Sequence[Step]) -> Step:
    """Observations, rewards, dones and infos of all groups; a single group's as they are."""
    if len(steps) == 1:
        return steps[0]
    observations, rewards, dones, infos = zip(*steps, strict=True)
    return (
        np.concatenate(observations),
        np.concatenate(rewards),
        np.concatenate(dones),
        [info for group in infos for info in group],
    )
