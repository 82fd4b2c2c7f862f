"""What agents require of an environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_wrapper

from agents.sb3.arguments import shown
from envs.errors import UserError
from envs.stacking import frame_channels
from rlcnn import encoders
from rlcnn.sb3 import EncoderExtractor


def check_images_and_discrete_actions(
    observation_space: spaces.Space, action_space: spaces.Space, env: VecEnv | None
) -> None:
    """Refuses spaces that no agent here can learn from, by a UserError.

    Observations must be uint8 images (channels, height, width) with bounds 0..255 that
    ``VecNormalize`` does not normalize, and actions discrete.
    """
    # First: normalized images are no longer uint8.
    normalize = None if env is None else unwrap_vec_wrapper(env, VecNormalize)
    if normalize is not None and normalize.norm_obs:
        raise UserError(
            "VecNormalize would normalize the images, which encoders scale themselves: use"
            " VecNormalize(norm_obs=False) for the rewards alone"
        )
    if (
        not isinstance(observation_space, spaces.Box)
        or len(observation_space.shape) != 3
        or observation_space.dtype != "uint8"
    ):
        raise UserError(
            "observations must be uint8 images, a Box of shape (channels, height, width);"
            f" this environment gives {_described(observation_space)}{_hint(observation_space)}"
        )
    if (observation_space.low != 0).any() or (observation_space.high != 255).any():
        low, high = observation_space.low.min(), observation_space.high.max()
        declared = f"{low}..{high}"
        if (low, high) == (0, 255):
            declared = "bounds that differ from pixel to pixel"
        raise UserError(
            f"observations are declared as {declared}: expected 0..255, by which encoders scale"
            " them. envs.PixelVecEnv, as the vector of environments, stretches what is declared to"
            " 0..255"
        )
    if not isinstance(action_space, spaces.Discrete):
        raise UserError(
            f"actions must be Discrete; this environment takes {_described(action_space)}"
        )
    if action_space.start != 0:
        raise UserError(f"actions must count from 0; this environment takes {action_space}")


def _check_kind(env: Any) -> None:
    if isinstance(env, gym.Env | VecEnv | str):
        return
    if env is None:
        raise UserError('env is None: give an environment or its id, such as "ALE/Pong-v5"')
    if isinstance(env, type):
        raise UserError(f"env is a class: give an instance of it, {env.__name__}(...)")
    if isinstance(env, list | tuple):
        raise UserError(
            f"env is a {type(env).__name__}: give one environment, or"
            " DummyVecEnv([make_env, make_env]) of functions that make them"
        )
    if isinstance(env, gym.vector.VectorEnv):
        raise UserError(
            "env is a vector of Gymnasium: make one of stable-baselines3, by make_vec_env"
        )
    if callable(env):
        raise UserError("env is a function: call it, or give DummyVecEnv([make_env])")
    raise UserError(f"env must be an environment or its id, not {shown(env)}")


def make_checked_env(env: GymEnv | str | None, verbose: int) -> GymEnv:
    """The environment that an agent was given, made if it is an id.

    A UserError refuses what is no environment, or as :func:`check_images_and_discrete_actions`.
    """
    _check_kind(env)
    try:
        made = maybe_make_env(env, verbose)  # type: ignore[arg-type]
    except (gym.error.Error, ImportError) as error:
        raise UserError(f'env "{env}" is not made: {" ".join(str(error).split())}') from error
    vec_env = made if isinstance(made, VecEnv) else None
    check_images_and_discrete_actions(made.observation_space, made.action_space, vec_env)
    return made


EncoderDefaults = Callable[[str, object], dict[str, Any]]
"""An encoder's name and its weights (None: none) -> options that the user may override."""


def with_encoder_options(arguments: dict[str, Any], defaults: EncoderDefaults) -> dict[str, Any]:
    """A policy's arguments, with an agent's defaults among the options of an encoder by name."""
    extractor = arguments.get("features_extractor_kwargs") or {}
    encoder = extractor.get("encoder", "nature")
    kind = arguments.get("features_extractor_class", EncoderExtractor)
    if not isinstance(encoder, str) or not issubclass(kind, EncoderExtractor):
        return arguments
    given = extractor.get("encoder_options") or {}
    options = {**defaults(encoder, extractor.get("weights")), **given}
    if not options:
        return arguments
    return {**arguments, "features_extractor_kwargs": {**extractor, "encoder_options": options}}


def with_frame_channels(arguments: dict[str, Any], env: VecEnv | None) -> dict[str, Any]:
    """A policy's arguments, with the channels of one frame among its encoder's options.

    They are added if the environment says them, the encoder takes them and they are not set. A
    saved agent without an environment has them in its arguments.
    """
    extractor = arguments.get("features_extractor_kwargs") or {}
    encoder = extractor.get("encoder")
    kind = arguments.get("features_extractor_class", EncoderExtractor)
    if env is None or not isinstance(encoder, str) or not issubclass(kind, EncoderExtractor):
        return arguments
    options = encoders.with_frame_channels(
        encoder, extractor.get("encoder_options") or {}, frame_channels(env)
    )
    return {**arguments, "features_extractor_kwargs": {**extractor, "encoder_options": options}}


def _hint(space: spaces.Space) -> str:
    if isinstance(space, spaces.Dict):
        images = [key for key, part in space.items() if len(part.shape or ()) == 3]
        return f': VecExtractDictObs(venv, "{images[0]}") hands on those alone' if images else ""
    if not isinstance(space, spaces.Box):
        return ""
    if len(space.shape) == 2:
        return f": wrap it in gymnasium.wrappers.ReshapeObservation(env, {(*space.shape, 1)})"
    if len(space.shape) == 4:
        return ": VecFrameStack stacks frames as channels, where FrameStackObservation does not"
    if len(space.shape) == 3:
        return ": gymnasium.wrappers.TransformObservation turns each into uint8"
    return ""


def _described(space: spaces.Space) -> str:
    # Only a Box's shape: its bounds, an array each, would fill the screen.
    is_box = isinstance(space, spaces.Box)
    return f"Box {space.dtype} {space.shape}" if is_box else " ".join(str(space).split())
