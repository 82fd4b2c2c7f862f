"""One function that makes any environment the library can train on."""

from __future__ import annotations

from stable_baselines3.common.vec_env import VecEnv

from envs.atari import AtariVecEnv
from envs.checks import ObservationColour
from envs.protocol import AtariProtocol


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
    """A vector of ``num_envs`` environments; see ``AtariVecEnv`` for the arguments."""
    return AtariVecEnv(
        env_id,
        num_envs,
        protocol=protocol,
        training=training,
        obs=obs,
        obs_size=obs_size,
        frame_stack=frame_stack,
        seed=seed,
        num_threads=num_threads,
        max_episode_steps=max_episode_steps,
    )
