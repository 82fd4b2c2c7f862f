"""Collects rollouts: an actor for each group of environments, and a step of all groups at a time.

A group is sent its actions as soon as they are chosen, and waited for as late as possible::

    send A, send B, [wait for A, send A, wait for B, (callbacks), send B] ...

With one group that is the plain loop: send, wait, callbacks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents.collect.actor import RolloutActor
from agents.storage.episode_ends import read_ends
from agents.storage.rollout import FrameRollout
from envs.groups import GroupedVecEnv, Step, join_steps
from rlcnn.accelerate.devices import use_threads


class OnPolicyCollector:
    """Steps environments into rollouts.

    ``groups`` are those of an environment that has some, or one group of all, each with an actor of
    its own.
    """

    def __init__(self, env: VecEnv, make_actor: Callable[[], RolloutActor]) -> None:
        self.env = env
        self.groups = [EnvGroup(env, slice(0, env.num_envs), make_actor())]
        if isinstance(env, GroupedVecEnv):
            parts = zip(env.groups, env.slices, strict=True)
            self.groups = [EnvGroup(group, envs, make_actor()) for group, envs in parts]
        self._newest_obs: np.ndarray | None = None

    @property
    def ready(self) -> bool:
        """Whether the actors have nothing left to capture as a graph."""
        return all(group.actor.ready for group in self.groups)

    def collect(
        self, model: OnPolicyAlgorithm, callback: BaseCallback, rollout: FrameRollout, n_steps: int
    ) -> bool:
        """Steps every environment ``n_steps`` times.

        The step count, newest observations and finished episodes of ``model`` are advanced, as
        ``callback`` expects after each step of all environments. If it stops the training, the step
        count returns to its value at the last update: the steps were never learned from.

        Returns:
            False if the callback stopped, else True.
        """
        steps_learned = model.num_timesteps
        observations = model._last_obs
        assert isinstance(observations, np.ndarray), "No previous observation was provided"
        continues = observations is self._newest_obs
        for group in self.groups:
            group.reset(None if continues else observations[group.envs])
        with use_threads(max(group.actor.threads for group in self.groups)):
            actions = [group.send() for group in self.groups]
            for step in range(n_steps):
                # While the environments step.
                for group in self.groups:
                    group.store(rollout)
                is_last = step + 1 == n_steps
                results, next_actions = [], []
                for group in self.groups:
                    results.append(group.receive())
                    if not is_last and group is not self.groups[-1]:
                        next_actions.append(group.send())
                new_obs, rewards, dones, infos = join_steps(results)
                model.num_timesteps += self.env.num_envs
                callback.update_locals(
                    {
                        "n_steps": step,
                        "actions": np.concatenate(actions),
                        # The actors may hold those of the next step already.
                        "values": rollout.values[step][:, None],
                        "log_probs": rollout.log_probs[step],
                        "new_obs": new_obs,
                        "rewards": rewards,
                        "dones": dones,
                        "infos": infos,
                    }
                )
                if not callback.on_step():
                    model.num_timesteps = steps_learned
                    # A later training continues from where the environments are now.
                    for group in self.groups:
                        if (newest := group.finish()) is not None:
                            new_obs[group.envs], dones[group.envs] = newest
                    model._last_obs, model._last_episode_starts = new_obs, dones
                    return False
                model._update_info_buffer(infos, dones)
                for group in self.groups:
                    rewards[group.truncated] += model.gamma * group.truncation_values
                assert model._last_episode_starts is not None
                rollout.add(rewards, model._last_episode_starts)
                model._last_obs = self._newest_obs = new_obs
                model._last_episode_starts = dones
                if not is_last:
                    actions = [*next_actions, self.groups[-1].send()]
        return True

    def current_values(self) -> torch.Tensor:
        """Values of the newest observations, float32 (environments,)."""
        return torch.cat([group.actor.current_values().flatten() for group in self.groups])


class EnvGroup:
    """Environments ``env`` that step together, ``envs`` of all, and their actor."""

    def __init__(self, env: VecEnv, envs: slice, actor: RolloutActor) -> None:
        self.env, self.envs, self.actor = env, envs, actor
        # Which of all environments the last step cut off by a time limit, and the values of the
        # observations that were cut off (Pardo et al. 2018).
        self.truncated = np.zeros(0, dtype=np.int64)
        self.truncation_values = np.zeros(0, dtype=np.float32)
        self._observations = np.zeros(0, dtype=np.uint8)
        self._stack_reset = np.zeros(0, dtype=bool)
        self._stepping = False

    def reset(self, observations: np.ndarray | None) -> None:
        """Starts a rollout from the group's observations.

        None continues from those received last, which need not be brought to a GPU again.
        """
        if (newest := self.finish()) is not None:
            # A step that an exception left under way.
            observations, _ = newest
        if observations is not None:
            self._observations = observations
        self.actor.reset(self._observations)
        # The first observation of a rollout is stored with its whole stack.
        self._stack_reset = np.ones(self.env.num_envs, dtype=bool)

    def send(self) -> np.ndarray:
        """Chooses actions and starts a step; returns them, int64 (environments of the group,)."""
        actions = self.actor.act()
        self.env.step_async(actions)
        self._stepping = True
        return actions

    def store(self, rollout: FrameRollout) -> None:
        """Stores the observations and the actions on them; to be called before :meth:`receive`."""
        actor = self.actor
        decision = (actor.actions, actor.values, actor.log_probs)
        rollout.add_decision(actor.observations, self._stack_reset, *decision, self.envs)

    def receive(self) -> Step:
        """Waits for the step, and hands its observations to the actor."""
        observations, rewards, dones, infos = self.env.step_wait()
        assert isinstance(observations, np.ndarray)
        self._stepping = False
        _, truncated, self._stack_reset = read_ends(dones, infos)
        envs = np.flatnonzero(truncated)
        self.truncated = envs + self.envs.start
        self.truncation_values = np.zeros(0, dtype=np.float32)
        if len(envs):
            terminal = np.stack([infos[env]["terminal_observation"] for env in envs])
            self.truncation_values = self.actor.truncation_values(terminal, envs)
        self._observations = observations
        # A GPU chooses the next actions while the host goes on.
        self.actor.observe(observations, self._stack_reset)
        return observations, rewards, dones, infos

    def finish(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Waits for a step under way; its observations and dones, or None if there is none."""
        if not self._stepping:
            return None
        observations, _, dones, _ = self.env.step_wait()
        assert isinstance(observations, np.ndarray)
        self._stepping = False
        return observations, dones
