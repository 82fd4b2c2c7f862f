"""Makes any environment that the library can train on."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from envs.atari import AtariVecEnv
from envs.atari_single import SingleAtariVecEnv
from envs.checked import warn_once
from envs.checks import ObservationColour
from envs.config import EnvConfig
from envs.pixels import make_pixel_vec_env
from envs.protocol import AtariProtocol
from envs.registry import is_atari_id


def make_vec_env(
    env: str | EnvConfig,
    num_envs: int,
    *,
    protocol: str | AtariProtocol = "classic",
    training: bool = True,
    obs: ObservationColour = "grey",
    obs_size: int = 84,
    frame_stack: int = 4,
    seed: int = 0,
    num_threads: int = 0,
    max_episode_steps: int | None = None,
) -> VecEnv:
    """Makes ``num_envs`` environments: Atari games, or other environments of Gymnasium.

    ``ALE/<Game>-v5`` makes an :class:`AtariVecEnv`, or with arguments, wrappers or a key a
    :class:`SingleAtariVecEnv`; any other registered id, also ``module:Id-v0``, a
    :class:`PixelVecEnv`. These classes describe the arguments; ``protocol`` and ``training`` have
    an effect only for Atari games, ``num_threads`` only in an :class:`AtariVecEnv`.

    Raises:
        UserError: a value is not valid, observations are not images or actions not discrete.
    """
    config = EnvConfig.of(env)
    options: dict[str, Any] = {
        "obs": obs,
        "obs_size": obs_size,
        "frame_stack": frame_stack,
        "seed": seed,
        "max_episode_steps": max_episode_steps,
    }
    if not is_atari_id(config.env_id):
        return make_pixel_vec_env(config, num_envs, **options)
    options |= {"protocol": protocol, "training": training}
    if config.is_changed:
        return SingleAtariVecEnv(config, num_envs, **options)
    if config.workers:
        warn_once(
            f'"{config.env_id}" steps in threads of its emulator: --env-workers {config.workers}'
            " has no effect"
        )
    return AtariVecEnv(config.env_id, num_envs, num_threads=num_threads, **options)
