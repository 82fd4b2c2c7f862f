"""Makes any environment that the library can train on."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from envs.atari import AtariVecEnv
from envs.checks import ObservationColour
from envs.pixels import make_pixel_vec_env
from envs.protocol import AtariProtocol
from envs.registry import find_spec, is_atari


def make_vec_env(
    env_id: str,
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

    ``ALE/<Game>-v5`` makes an :class:`AtariVecEnv`; any other registered id, also ``module:Id-v0``,
    a :class:`PixelVecEnv`. These classes describe the arguments; ``protocol``, ``training`` and
    ``num_threads`` have an effect only for Atari games.

    Raises:
        UserError: a value is not valid, observations are not images or actions not discrete.
    """
    options: dict[str, Any] = {
        "obs": obs,
        "obs_size": obs_size,
        "frame_stack": frame_stack,
        "seed": seed,
        "max_episode_steps": max_episode_steps,
    }
    if env_id.startswith("ALE/") or is_atari(find_spec(env_id)):
        options |= {"protocol": protocol, "training": training, "num_threads": num_threads}
        return AtariVecEnv(env_id, num_envs, **options)
    return make_pixel_vec_env(env_id, num_envs, **options)
