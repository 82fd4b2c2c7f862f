"""Policies as stable-baselines3's users ask for them: each works, or is refused in one line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import maybe_transpose
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs

from envs.errors import UserError, nearest

_ENCODER_HINT = 'an encoder is chosen by features_extractor_kwargs=dict(encoder="impala")'


def resolve_policy(
    policy: Any, policy_kwargs: Any, ours: type[BasePolicy], theirs: type[BasePolicy]
) -> tuple[type[BasePolicy], dict[str, Any]]:
    """The policy class of ours that serves, and its arguments.

    stable-baselines3's own policy for images, given as a class or read from its zip, becomes ours
    with its network, ``NatureCNN``: the parameters have the same names and shapes.

    Args:
        policy: the class that was asked for.
        policy_kwargs: its arguments.
        ours: the algorithm's policy.
        theirs: stable-baselines3's policy for images of the same algorithm.

    Raises:
        UserError: ``policy`` is another class, or an argument is unknown.
    """
    if not isinstance(policy_kwargs, Mapping):
        raise UserError(f"policy_kwargs must be a dict, not {policy_kwargs!r}")
    chosen = dict(policy_kwargs)
    if policy is theirs:
        policy = ours
        extractor = chosen.setdefault("features_extractor_class", NatureCNN)
        if extractor is not NatureCNN:
            # What stable-baselines3 puts behind any other extractor.
            chosen.setdefault("net_arch", [64, 64])
    if not (isinstance(policy, type) and issubclass(policy, ours)):
        name = getattr(policy, "__name__", repr(policy))
        raise UserError(
            f'policy {name} does not fit: expected "CnnPolicy" or a subclass of'
            f" agents.policies.{ours.__name__}; a file saved by another algorithm is loaded by it"
        )
    return policy, chosen


def unknown_policy(name: str) -> UserError:
    """What to say of a policy's name that is not "CnnPolicy"."""
    return UserError(
        f'policy "{name}" is unknown: observations are images, so the policy is "CnnPolicy"'
    )


def check_policy_arguments(
    base: type[BasePolicy],
    more: Mapping[str, Any],
    extractor: Any,
    extractor_kwargs: Mapping[str, Any] | None,
    net_arch: Any,
) -> None:
    """Refuses arguments of a policy that are unknown or of the wrong kind.

    Args:
        base: stable-baselines3's policy, which takes ``more``.
        more: arguments that our policy hands on.
        extractor: the class of the features extractor.
        extractor_kwargs: its arguments.
        net_arch: hidden layers of the heads; None for the default.

    Raises:
        UserError: one is.
    """
    known = [name for name in inspect.signature(base.__init__).parameters if name != "self"]
    known += ["precision", "encoder_lr_factor", "unfreeze_at_step", "feature_dtype"]
    for name in more:
        if name not in known:
            meant = _ENCODER_HINT if name.startswith("encoder") else ""
            hint = f"; {meant}" if meant else "." + nearest(name, known, cutoff=0.6)
            raise UserError(f'policy_kwargs has no option "{name}"{hint}'.rstrip("."))
    if not (isinstance(extractor, type) and issubclass(extractor, BaseFeaturesExtractor)):
        raise UserError(
            "features_extractor_class must be a subclass of BaseFeaturesExtractor, not"
            f" {' '.join(repr(extractor).split())[:60]}; {_ENCODER_HINT}"
        )
    parameters = inspect.signature(extractor.__init__).parameters
    if all(one.kind is not one.VAR_KEYWORD for one in parameters.values()):
        names = list(parameters)[2:]
        for name in extractor_kwargs or {}:
            if name not in names:
                raise UserError(
                    f'features_extractor_kwargs has no option "{name}": {extractor.__name__} takes'
                    f" {', '.join(names) or 'none'}.{nearest(name, names, cutoff=0.6)}"
                )
    _check_net_arch(base, net_arch)


def _check_net_arch(base: type[BasePolicy], net_arch: Any) -> None:
    # An actor-critic may have other layers for each of its heads.
    two_heads = "ortho_init" in inspect.signature(base.__init__).parameters
    layers = net_arch
    if two_heads:
        if isinstance(layers, list) and len(layers) == 1 and isinstance(layers[0], dict):
            (layers,) = layers
        if isinstance(layers, dict) and set(layers) <= {"pi", "vf"}:
            layers = [
                width for head in layers.values() for width in (head or []) if head is not None
            ]
    if layers is None:
        return
    if not isinstance(layers, list | tuple) or any(
        isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1
        for width in layers
    ):
        each = " or dict(pi=[64], vf=[64])" if two_heads else ""
        raise UserError(
            f"net_arch must be the widths of hidden layers, [64, 64]{each}, not {net_arch!r}"
        )


def as_images(observation: Any, space: spaces.Box) -> np.ndarray:
    """Observations as uint8 images, channels first, as ``predict`` is given them.

    Args:
        observation: one observation or a batch of them, channels first or last, of any numbers
            from 0 to 255; fractions are rounded.
        space: uint8 (channels, height, width).

    Raises:
        UserError: the shape is another, or the numbers are no pixels of 0 to 255.
    """
    if isinstance(observation, Mapping):
        raise UserError(f"predict takes an array of images {space.shape}, not a dict")
    if isinstance(observation, torch.Tensor):
        observation = observation.detach().cpu()
    images = np.asarray(observation)
    if images.ndim in (3, 4):
        images = maybe_transpose(images, space)
    if images.ndim not in (3, 4) or images.shape[-3:] != space.shape:
        raise UserError(
            f"predict takes images {space.shape} or a batch of them, not of shape {images.shape}"
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "buif":
        raise UserError(f"predict takes pixels of 0 to 255, not {images.dtype}")
    least, most = (images.min(), images.max()) if images.size else (0, 0)
    # A comparison with NaN is False.
    if not (least >= 0 and most <= 255):
        raise UserError(f"predict takes pixels of 0 to 255, not of {least:g} to {most:g}")
    rounded = np.rint(images) if images.dtype.kind == "f" else images
    if most <= 1 and (rounded != images).any():
        raise UserError(
            "predict takes pixels of 0 to 255, but these are fractions of at most 1: multiply by"
            " 255, or hand over the uint8 images"
        )
    return rounded.astype(np.uint8)


class ImageInput(BaseModel):
    """Makes uint8 images of whatever numbers ``predict`` is given."""

    def obs_to_tensor(self, observation: Any) -> tuple[PyTorchObs, bool]:
        """Observations as a uint8 tensor on the device, and whether they are a batch.

        Raises:
            UserError: as of :func:`as_images`.
        """
        assert isinstance(self.observation_space, spaces.Box)
        return super().obs_to_tensor(as_images(observation, self.observation_space))
