"""One function that makes any environment the library can train on."""

from __future__ import annotations

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
    """``num_envs`` environments side by side: Atari games, or whatever else Gymnasium knows.

    Args:
        env_id: ``ALE/<Game>-v5`` makes an ``AtariVecEnv``; any other registered id, also
            ``module:Id-v0``, a ``PixelVecEnv``.
        num_envs: how many.
        protocol: Atari only: how games are played.
        training: Atari only: False leaves out what only training does (episodes that end at a lost
            life, clipped rewards).
        obs: "grey" or "rgb".
        obs_size: height and width of observations in pixels.
        frame_stack: frames in one observation.
        seed: 0 <= seed < 2**31.
        num_threads: Atari only: emulator threads; 0 takes one per game, at most one per usable
            core.
        max_episode_steps: agent steps after which an episode is truncated; None takes the
            protocol's, or leaves it to the environment.

    Raises:
        UserError: a value is not valid, observations are not images or actions not discrete.
    """
    if env_id.startswith("ALE/") or is_atari(find_spec(env_id)):
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
    return make_pixel_vec_env(
        env_id,
        num_envs,
        obs=obs,
        obs_size=obs_size,
        frame_stack=frame_stack,
        seed=seed,
        max_episode_steps=max_episode_steps,
    )
