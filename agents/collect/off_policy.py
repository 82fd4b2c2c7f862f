"""Collects steps into a replay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import RolloutReturn
from stable_baselines3.common.vec_env import VecEnv

from agents.storage.replay import FrameReplay


def collect_steps(
    model: OffPolicyAlgorithm,
    env: VecEnv,
    callback: BaseCallback,
    replay_buffer: FrameReplay,
    act: Callable[[], np.ndarray],
    until: int,
    log_interval: int | None,
) -> RolloutReturn:
    """Steps the environments until a callback stops or ``model.num_timesteps`` reaches ``until``.

    Callbacks find its local variables among their ``locals``, under stable-baselines3's names.

    Args:
        model: whose counters, newest observations and finished episodes are advanced, as callbacks
            expect at each step; its ``_on_step`` and ``dump_logs`` are called where
            stable-baselines3 calls them.
        env: the training environments.
        callback: called after each step of all environments.
        replay_buffer: stores the steps.
        act: chooses actions int64 (environments,) for the newest observations.
        until: environment steps since the training began.
        log_interval: episodes between two logs.
    """
    num_collected_steps, num_collected_episodes = 0, 0
    continue_training = True
    while continue_training and model.num_timesteps < until:
        actions = act()
        new_obs, rewards, dones, infos = env.step(actions)
        assert isinstance(new_obs, np.ndarray)
        replay_buffer.add(actions, rewards, dones, infos, new_obs)
        model._last_obs = new_obs
        model.num_timesteps += env.num_envs
        num_collected_steps += env.num_envs
        callback.update_locals(locals())
        continue_training = bool(callback.on_step())
        model._update_info_buffer(infos, dones)
        model._on_step()
        ended = int(dones.sum())
        num_collected_episodes += ended
        model._episode_num += ended
        # At most once a step: rows of metrics are keyed by it.
        if log_interval is not None and model._episode_num % log_interval < ended:
            model.dump_logs()
    return RolloutReturn(num_collected_steps, num_collected_episodes, continue_training)
