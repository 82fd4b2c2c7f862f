"""Groups of environments that step in turn, or together as one vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from envs.checks import derive_seeds


class GroupedVecEnv(VecEnv):
    """Several vector environments as one.

    A collector may step each group by itself: while the policy acts in one, the others step.

    Attributes:
        groups: the vector environments.
        slices: the environments of each group.

    Args:
        groups: at least one, with equal spaces; this object closes them.
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
        """Seeds the next ``reset``; each group gets a seed derived from this one."""
        seeds = derive_seeds(seed, len(self.groups))
        return [s for group, own in zip(self.groups, seeds, strict=True) for s in group.seed(own)]

    def reset(self) -> np.ndarray:
        """Restarts all environments; observations (environments, channels, height, width)."""
        observations = np.concatenate([group.reset() for group in self.groups])
        self.reset_infos = [info for group in self.groups for info in group.reset_infos]
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Starts a step in every environment."""
        for group, envs in zip(self.groups, self.slices, strict=True):
            group.step_async(actions[envs])

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Waits for every environment, and joins the results of the groups."""
        return join_steps([group.step_wait() for group in self.groups])  # type: ignore[misc]

    def close(self) -> None:
        """Closes every group, also if one of them fails to."""
        with ExitStack() as stack:
            for group in self.groups:
                stack.callback(group.close)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the chosen environments."""
        values = [value for group in self.groups for value in group.get_attr(attr_name)]
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets the attribute of the chosen environments."""
        for group, own in self._split(indices):
            group.set_attr(attr_name, value, own)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Calls the method of the chosen environments."""
        return [
            result
            for group, own in self._split(indices)
            for result in group.env_method(method_name, *method_args, indices=own, **method_kwargs)
        ]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether the chosen environments are wrapped."""
        wrapped = [one for group in self.groups for one in group.env_is_wrapped(wrapper_class)]
        return [wrapped[i] for i in self._get_indices(indices)]

    def _split(self, indices: VecEnvIndices) -> list[tuple[VecEnv, list[int]]]:
        """Groups with chosen environments, and the indices of these in the group."""
        wanted = list(self._get_indices(indices))
        split = []
        for group, envs in zip(self.groups, self.slices, strict=True):
            own = [i - envs.start for i in wanted if envs.start <= i < envs.stop]
            if own:
                split.append((group, own))
        return split


Step = tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]


def join_steps(steps: Sequence[Step]) -> Step:
    """Joins observations, rewards, dones and infos of all groups; one group's are not copied."""
    if len(steps) == 1:
        return steps[0]
    observations, rewards, dones, infos = zip(*steps, strict=True)
    return (
        np.concatenate(observations),
        np.concatenate(rewards),
        np.concatenate(dones),
        [info for group in infos for info in group],
    )
