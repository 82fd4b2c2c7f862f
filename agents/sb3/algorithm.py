"""What both algorithms ask of an environment and of a loss."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import gymnasium as gym
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_wrapper

from agents.sb3.arguments import check_environment, checked_device, unknown_policy
from envs.errors import UserError
from envs.stacking import FrameStacking, frame_channels
from rlcnn import encoders
from rlcnn.sb3 import EncoderExtractor


def check_images_and_discrete_actions(
    observation_space: spaces.Space, action_space: spaces.Space, env: VecEnv | None
) -> None:
    """Refuses what the agents here cannot learn from.

    Raises:
        UserError: Unless observations are uint8 images (channels, height, width) of bounds 0..255
            and actions discrete, or where ``VecNormalize`` normalizes observations.
    """
    # First, since what it makes of images is no longer uint8.
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


def make_checked_env(env: GymEnv | str | None, verbose: int) -> GymEnv:
    """The environment that an agent was given, made if it is an id.

    stable-baselines3 would assert, or warn of, what is refused here in one line.

    Raises:
        UserError: as of :func:`check_images_and_discrete_actions`, or it is no environment.
    """
    check_environment(env)
    try:
        made = maybe_make_env(env, verbose)  # type: ignore[arg-type]
    except (gym.error.Error, ImportError) as error:
        raise UserError(f'env "{env}" is not made: {" ".join(str(error).split())}') from error
    vec_env = made if isinstance(made, VecEnv) else None
    check_images_and_discrete_actions(made.observation_space, made.action_space, vec_env)
    return made


def check_stacking(observation_space: spaces.Box, stacking: FrameStacking) -> None:
    """Refuses observations that are not made as the environment says, as when wrapped once more.

    Raises:
        UserError: ``stacking`` does not make observations of so many channels.
    """
    channels = observation_space.shape[0]
    if channels != stacking.depth * stacking.channels:
        raise UserError(
            f"the environment says it stacks {stacking.depth} frames of {stacking.channels}"
            f" channels, but its observations have {channels} channels: give it"
            " frame_stack=N instead of stacking its observations once more"
        )


def with_frame_channels(arguments: dict[str, Any], env: VecEnv | None) -> dict[str, Any]:
    """A policy's arguments, with the channels of a frame among the options of its encoder.

    They are added where the environment says them, the encoder takes them and they are not set.

    Args:
        arguments: ``policy_kwargs``; left as they are.
        env: the environment; None where a saved agent is loaded, whose arguments have them.

    Raises:
        UserError: no encoder of that name.
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


# Modules that zips of ``save`` may name, since they pickle classes: what they are called now.
FORMER_NAMES = {
    "agents.policies": "agents.networks.policies",
    "agents.replay": "agents.storage.replay",
    "agents.rollout": "agents.storage.rollout",
    "rlcnn.encoders.sb3": "rlcnn.sb3",
}


@contextmanager
def former_names() -> Iterator[None]:
    """Lets zips be read that were saved when modules had other names."""
    sys.modules.update({old: importlib.import_module(new) for old, new in FORMER_NAMES.items()})
    try:
        yield
    finally:
        for old in FORMER_NAMES:
            del sys.modules[old]


class RefusedInOneLine(BaseAlgorithm):
    """Refuses in one line what stable-baselines3 meets with other errors."""

    @classmethod
    def load(
        cls, path: Any, env: GymEnv | None = None, device: Any = "auto", *args: Any, **kwargs: Any
    ) -> Self:
        """Reads a zip that ``save`` wrote, as stable-baselines3's ``load``.

        Raises:
            UserError: the environment is none, or none that an agent here can learn from, or the
                device is not there.
        """
        made = None if env is None else make_checked_env(env, verbose=0)
        try:
            with former_names():
                return super().load(path, made, checked_device(device), *args, **kwargs)
        except ValueError as error:
            if not str(error).startswith("The specified policy kwargs do not equal"):
                raise
            # What was found out of the environment is saved with them.
            raise UserError(
                "policy_kwargs are not those of the file: leave them out of load(), which takes"
                " them from there"
            ) from error

    def check_env_is_set(self) -> VecEnv:
        """The environment.

        Raises:
            UserError: there is none, as where an agent was loaded without one.
        """
        if self.env is None:
            raise UserError(
                "the agent has no environment: call set_env(env) first, or load it with"
                f" {type(self).__name__}.load(path, env=env)"
            )
        return self.env

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise unknown_policy(policy_name)
        return super()._get_policy_from_name(policy_name)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        try:
            return super()._init_callback(callback, progress_bar)
        except ImportError as error:
            if not progress_bar:
                raise
            raise UserError("progress_bar=True needs tqdm: pip install tqdm") from error

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Goes on in another environment, of the same spaces and number.

        Raises:
            UserError: what no agent here can learn from.
        """
        super().set_env(make_checked_env(env, self.verbose), force_reset)


class LearningRateFactors(RefusedInOneLine):
    """Anneals every parameter group's learning rate, times its own ``lr_factor`` if it has one.

    stable-baselines3's own would give a fine-tuned encoder the heads' rate, and replace a rate that
    is a tensor, which captured code reads, by a number.
    """

    def _update_learning_rate(
        self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer
    ) -> None:
        rate = self.lr_schedule(self._current_progress_remaining)
        self.logger.record("train/learning_rate", rate)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            for group in optimizer.param_groups:
                scaled = rate * group.get("lr_factor", 1.0)
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(scaled)
                else:
                    group["lr"] = scaled


def raise_if_not_finite(loss: float, step: int) -> None:
    """Stops a training whose loss is no longer a number, before anything more is saved.

    Raises:
        UserError: If ``loss`` is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} by step {step}: training stopped; the checkpoints up to here"
            " are whole. A lower learning rate is the usual cure"
        )


def _hint(space: spaces.Space) -> str:
    """What makes images of observations that are nearly some."""
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
