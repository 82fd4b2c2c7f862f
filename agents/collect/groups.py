"""Groups of environments that PPO plays in turn: one group plays while the policy acts for another.

A group is sent its actions as soon as they are there, and waited for as late as possible::

    send A, send B, [wait for A, send A, wait for B, (callbacks), send B] ...

With one group that is the plain loop: send, wait, callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.actor import Player
from agents.storage.rollout import FrameRollout
from envs.groups import GroupedVecEnv, Step


class EnvGroup:
    """Environments that step together, and the actor that plays them.

    Attributes:
        env: the environments.
        envs: which of all environments they are.
        player: acts for them.
        truncated: int64, which of all environments the last step cut off by a time limit.
        truncation_values: float32, the values of the observations that were cut off (Pardo et al.
            2018).

    Args:
        env: the environments.
        envs: which of all environments they are.
        player: acts for them.
    """

    def __init__(self, env: VecEnv, envs: slice, player: Player) -> None:
        self.env, self.envs, self.player = env, envs, player
        self.truncated = np.zeros(0, dtype=np.int64)
        self.truncation_values = np.zeros(0, dtype=np.float32)
        self._observations = np.zeros(0, dtype=np.uint8)
        self._stack_starts = np.zeros(0, dtype=bool)
        self._playing = False

    def begin(self, observations: np.ndarray | None) -> None:
        """Starts a rollout.

        Args:
            observations: uint8 (environments of the group, depth * channels, height, width); None
                goes on from those received last, which need not be brought to a GPU again.
        """
        if (newest := self.finish()) is not None:
            # A step that an exception left under way.
            observations, _ = newest
        if observations is not None:
            self._observations = observations
        self.player.begin(self._observations)
        # The first observation of a rollout brings its whole stack along.
        self._stack_starts = np.ones(self.env.num_envs, dtype=bool)

    def send(self) -> np.ndarray:
        """Acts and sets the environments going.

        Returns:
            Actions int64 (environments of the group,).
        """
        actions = self.player.act()
        self.env.step_async(actions)
        self._playing = True
        return actions

    def store(self, rollout: FrameRollout) -> None:
        """Stores what was acted on and how; to be called before :meth:`receive`."""
        player = self.player
        rollout.store(
            player.observations,
            self._stack_starts,
            player.actions,
            player.values,
            player.log_probs,
            self.envs,
        )

    def receive(self) -> Step:
        """Waits for the environments, and shows the actor what they show."""
        observations, rewards, dones, infos = self.env.step_wait()
        assert isinstance(observations, np.ndarray)
        self._playing = False
        cut_off = [i for i in np.flatnonzero(dones) if infos[i].get("TimeLimit.truncated")]
        self.truncated = np.array(cut_off, dtype=np.int64) + self.envs.start
        self.truncation_values = np.zeros(0, dtype=np.float32)
        if cut_off:
            last = np.stack([infos[i]["terminal_observation"] for i in cut_off])
            self.truncation_values = self.player.values_of_last(last, np.array(cut_off))
        self._observations = observations
        self._stack_starts = _stack_starts(dones, infos)
        # A GPU decides on the next actions while the host goes on.
        self.player.look(observations, self._stack_starts)
        return observations, rewards, dones, infos

    def finish(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Waits for a step under way; its observations and dones, or None where there is none."""
        if not self._playing:
            return None
        observations, _, dones, _ = self.env.step_wait()
        assert isinstance(observations, np.ndarray)
        self._playing = False
        return observations, dones


def make_groups(env: VecEnv, make_player: Callable[[], Player]) -> list[EnvGroup]:
    """The groups of an environment that has some, or one group of all.

    Args:
        env: the training environments.
        make_player: makes the actor of one group.
    """
    if isinstance(env, GroupedVecEnv):
        return [
            EnvGroup(group, envs, make_player())
            for group, envs in zip(env.groups, env.slices, strict=True)
        ]
    return [EnvGroup(env, slice(0, env.num_envs), make_player())]


def _stack_starts(dones: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
    """Which observations begin a fresh stack: those after a real end, not after a lost life."""
    starts = dones.copy()
    for i in np.flatnonzero(dones):
        starts[i] = not infos[i].get("life_loss", False)
    return starts
